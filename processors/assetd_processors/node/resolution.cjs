// Where module resolution looks, for bundlers that do not say what they did not find.
//
// Every path that is looked at here is listened to by `trace.cjs`; the search ends at the first
// file that is there, as theirs does.

'use strict';

const fs = require('fs');
const path = require('path');

function isFile(file) {
  try {
    return fs.statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Look at a module's path with suffixes and as a folder; whether one is there. */
function around(base, suffixes) {
  const typed = /\.jsx?$/.test(base) && suffixes.includes('.ts')
    ? ['.ts', '.tsx'].map((suffix) => base.replace(/\.jsx?$/, suffix))
    : [];
  return [base, ...suffixes.map((suffix) => base + suffix), ...typed].some(isFile)
    || isFile(path.join(base, 'package.json'))
    || suffixes.some((suffix) => isFile(path.join(base, `index${suffix}`)));
}

/** Look for what a module in `folder` imports as `name`. */
function lookFor(name, folder, suffixes) {
  if (path.isAbsolute(name) || /^\.{1,2}(\/|$)/.test(name)) {
    around(path.resolve(folder, name), suffixes);
  } else if (!/^[a-z]+:/.test(name)) {
    const packaged = /^(@[^/]+\/)?[^/]+/.exec(name)[0];
    for (const at of upwards(folder)) {
      const modules = path.join(at, 'node_modules');
      if (isFile(path.join(modules, packaged, 'package.json'))) return;
      if (around(path.join(modules, name), suffixes)) return;
    }
  }
}

/** Look for files of these names in a folder and in those above it. */
function lookUp(names, folder) {
  for (const at of upwards(folder)) {
    for (const name of names) isFile(path.join(at, name));
  }
}

function* upwards(folder) {
  let at = folder;
  for (;;) {
    yield at;
    if (at === path.dirname(at)) return;
    at = path.dirname(at);
  }
}

module.exports = { lookFor, lookUp };
