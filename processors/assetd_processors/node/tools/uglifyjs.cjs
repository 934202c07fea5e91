// JavaScript to less JavaScript.
//
// {path, text, output, map, chained, options} -> {code, map}

'use strict';

const path = require('path');

module.exports = async (request, kit) => {
  const uglify = kit.load('uglify-js');
  const name = path.basename(request.output);
  const options = { ...request.options };
  if (request.map) {
    options.sourceMap = {
      includeSources: true,
      filename: name,
      url: `${name}.map`,
      ...(request.chained === null ? {} : { content: request.chained }),
      ...(typeof options.sourceMap === 'object' ? options.sourceMap : {}),
    };
  }
  const result = uglify.minify({ [request.path]: request.text }, options);
  for (const warning of result.warnings || []) kit.warn(warning);
  if (result.error) {
    const { message, line, col } = result.error;
    throw { message, line, column: typeof col === 'number' ? col + 1 : null };
  }
  return { code: result.code, map: result.map ?? null };
};
