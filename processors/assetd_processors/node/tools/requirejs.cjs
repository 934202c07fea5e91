// A build of AMD modules by r.js, as its build file says.
//
// {build, scratch} -> {out, dir, root, made}
//
// `out` or `dir` is where the build file wants its result, as an absolute path; `root` is the
// folder that a `dir` is made from; `made` names what was written below `scratch`.

'use strict';

const fs = require('fs');
const path = require('path');
const vm = require('vm');

module.exports = async (request, kit) => {
  // r.js keeps modules, paths and contexts of a build in itself: every build gets a fresh one.
  const requirejs = fresh(kit);
  const text = fs.readFileSync(request.build, 'utf8');
  const said = vm.runInNewContext(text, { console }, { filename: request.build, timeout: 10_000 });
  if (typeof said !== 'object' || said === null) {
    throw new Error('a build file holds one object in parentheses: ({...})');
  }
  const folder = path.dirname(request.build);
  const whole = typeof said.dir === 'string';
  if (!whole && typeof said.out !== 'string') throw new Error('expected `out` or `dir` as text');
  const wanted = path.resolve(folder, whole ? said.dir : said.out);
  const scratch = path.join(request.scratch, 'made');
  const there = whole ? scratch : path.join(scratch, path.basename(wanted));
  await new Promise((resolve, reject) => {
    requirejs.optimize(
      { buildFile: request.build, [whole ? 'dir' : 'out']: there, logLevel: 4 },
      resolve,
      (error) => reject(placed(error)),
    );
  });
  const root = path.resolve(folder, said.appDir ?? said.baseUrl ?? '.');
  return { out: whole ? null : wanted, dir: whole ? wanted : null, root, made: names(scratch, '') };
};

function fresh(kit) {
  const before = new Set(Object.keys(require.cache));
  const requirejs = kit.load('requirejs');
  for (const file of Object.keys(require.cache)) {
    if (!before.has(file)) delete require.cache[file];
  }
  return requirejs;
}

function names(folder, prefix) {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (
    entry.isDirectory()
      ? names(path.join(folder, entry.name), `${prefix}${entry.name}/`)
      : [prefix + entry.name]
  ));
}

/** r.js tells its errors in a text of several lines, with the stack in it. */
function placed(error) {
  const text = (error.message || String(error)).trim().split(/\n+In module tree:|\n+ {4}at /)[0];
  const parse = /^(?:Error: )*Parse error using esprima for file: (.+)\n(?:Error: )?Line (\d+): (.*)/.exec(text);
  if (parse !== null) {
    const [, file, line, message] = parse;
    return { message, file, line: Number(line) };
  }
  const { path: lost, moduleTree } = error.originalError ?? {};
  const from = moduleTree?.length > 0 ? ` (from ${moduleTree.join(', ')})` : '';
  return {
    message: text.replace(/^(Error: )+/, '').replace(/\s*\n\s*/g, '; ') + (lost ? from : ''),
  };
}
