// Less to CSS, with imports found as `lessc` finds them.
//
// {path, text, output, paths, map, options} -> {css, map}

'use strict';

const fs = require('fs');
const path = require('path');

let warn = () => {};
let less;
let search;

function start(load) {
  less = load('less');
  less.logger.addListener({ warn: (message) => warn(message), error: () => {}, info: () => {}, debug: () => {} });
  // Less's own search would end with `require.resolve` from where Less is installed, which
  // finds our packages instead of the project's, without a trace.  Ours ends with the
  // `node_modules` of the project.
  const Search = function () {};
  Search.prototype = Object.assign(Object.create(less.FileManager.prototype), {
    loadFile(name, folder, options, _environment, callback) {
      const candidates = places(name, folder, options || {});
      if (options && options.syncImport) {
        const result = readNow(this, candidates, name, options);
        if (callback) callback(result.error, result);
        return result;
      }
      return readLater(this, candidates, name, options || {});
    },
    loadFileSync(name, folder, options) {
      return readNow(this, places(name, folder, options), name, options);
    },
  });
  search = { install: (_less, manager) => manager.addFileManager(new Search()), minVersion: [4] };
  Search.prototype.supports = (name, folder) => !isUrl(name) && !isUrl(folder);
  Search.prototype.supportsSync = Search.prototype.supports;
}

function isUrl(name) {
  return /^(?:https?:)?\/\//i.test(name || '');
}

/** Where Less looks for a name: the importing file's folder, the paths, the current folder. */
function places(name, folder, options) {
  const extended = options.ext && !/(\.[a-z]*$)|([?;].*)$/.test(name) ? name + options.ext : name;
  const bare = !/^[./]/.test(name);
  const found = [];
  const at = (where, file) => {
    for (const prefix of options.prefixes || ['']) {
      found.push(path.join(where, path.dirname(file), prefix + path.basename(file)));
    }
  };
  if (path.isAbsolute(name)) return [extended];
  const folders = [folder, ...(options.paths || [])];
  for (const each of folders) at(each, extended);
  if (bare) at('node_modules', extended);
  at('', extended);
  return [...new Set(found.map((file) => path.resolve(file)))];
}

function missing(name, candidates) {
  const tried = candidates.map((file) => path.relative('', file)).join(', ');
  return { type: 'File', message: `'${name}' wasn't found. Tried - ${tried}` };
}

function readNow(_manager, candidates, name, options) {
  for (const file of candidates) {
    try {
      return { contents: fs.readFileSync(file, options.rawBuffer ? undefined : 'utf-8'), filename: file };
    } catch { /* the next one */ }
  }
  return { error: missing(name, candidates) };
}

/** As a promise, but read at once: nobody else waits for us, and `fs.promises` costs thrice. */
async function readLater(manager, candidates, name, options) {
  const result = readNow(manager, candidates, name, options);
  if (result.error) throw result.error;
  return result;
}

module.exports = async (request, kit) => {
  if (less === undefined) start(kit.load);
  const said = new Set();
  warn = (message) => {
    // That is about the configuration, and would stand beside every source for ever.
    if (!/^The compress option has been deprecated/.test(message)) said.add(String(message));
  };
  const { options } = request;
  const name = path.basename(request.output);
  try {
    const result = await less.render(request.text, {
      ...options,
      filename: request.path,
      paths: [path.dirname(request.path), ...request.paths],
      plugins: [search],
      sourceMap: request.map
        ? {
          sourceMapOutputFilename: name,
          sourceMapFilename: `${name}.map`,
          sourceMapBasepath: process.cwd(),
          outputSourceFiles: true,
        }
        : undefined,
    });
    return { css: result.css, map: result.map ?? null };
  } catch (error) {
    throw place(error, request);
  } finally {
    for (const message of said) kit.warn(message);
  }
};

function place(error, request) {
  let line = error.line ?? null;
  if (line !== null && error.filename === request.path) line -= linesBefore(request.options);
  return {
    message: error.message || String(error),
    file: error.filename ?? null,
    line,
    column: typeof error.column === 'number' && line !== null ? error.column + 1 : null,
  };
}

/** How many lines the options put before the text, which Less counts as its own. */
function linesBefore({ banner = '', globalVars }) {
  const before = banner + (globalVars ? `${Object.values(globalVars).join('')}\n` : '');
  return before.split('\n').length - 1;
}
