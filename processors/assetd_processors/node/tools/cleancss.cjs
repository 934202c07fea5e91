// CSS to less CSS.
//
// {path, text, output, map, chained, options} -> {css, map}

'use strict';

const path = require('path');

const PLACE = /\s+at\s+(?:(.+?):)?(\d+):(\d+)/;

module.exports = async (request, kit) => {
  const CleanCSS = kit.load('clean-css');
  const name = path.basename(request.output);
  const from = path.relative('', request.path);
  const minifier = new CleanCSS({
    ...request.options,
    ...(request.map ? { sourceMap: true, sourceMapInlineSources: true } : {}),
  });
  const input = { [from]: { styles: request.text } };
  if (request.chained !== null) input[from].sourceMap = request.chained;
  const result = await new Promise((resolve) => {
    minifier.minify(input, (errors, output) => resolve(output ?? { errors, warnings: [], styles: '' }));
  });
  for (const warning of result.warnings) kit.warn(placed(warning));
  if (result.errors?.length > 0) {
    const all = result.errors.map(placed);
    const first = all[0].line === undefined ? { ...all[0], ...lineOf(all[0], request.text) } : all[0];
    throw { ...first, message: all.map((each) => each.message).join('; ') };
  }
  if (!request.map) return { css: result.styles, map: null };
  const map = JSON.parse(result.sourceMap.toString());
  map.file = name;
  return {
    css: `${result.styles}\n/*# sourceMappingURL=${encodeURI(name)}.map */`,
    map: JSON.stringify(map),
  };
};

/** A message of clean-css, which has its place in the text. */
function placed(message) {
  const found = PLACE.exec(message);
  if (found === null) return { message };
  const [, file, line, column] = found;
  return {
    message: message.replace(PLACE, ''),
    file: file === undefined ? null : path.resolve(file),
    line: Number(line),
    column: Number(column) + 1,
  };
}

/** Where the text imports what an error says is not there. */
function lineOf({ message }, text) {
  const name = /@import of "(.+?)"/.exec(message)?.[1];
  const at = text.split('\n').findIndex((line) => (
    line.includes('@import') && name !== undefined && line.includes(path.basename(name))
  ));
  return at < 0 ? {} : { line: at + 1 };
}
