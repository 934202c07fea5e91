// Modern JavaScript and TypeScript to what browsers run.
//
// {path, text, output, options} -> {files: {name: text}}
//
// Options are those of esbuild's JavaScript API.  `text` stands for what is in the file.

'use strict';

const path = require('path');

const EXTENSIONS = ['.tsx', '.ts', '.jsx', '.js', '.css', '.json'];

module.exports = async (request, kit) => {
  const esbuild = kit.load('esbuild');
  const { path: file, options } = request;
  // esbuild is a process of its own: what it asks for, it says only to a plugin.
  const listener = {
    name: 'assetd',
    setup(build) {
      build.onResolve({ filter: /.*/ }, (args) => {
        if (args.resolveDir) candidates(args.path, args.resolveDir, kit.reads);
        return undefined;
      });
      build.onLoad({ filter: /.*/ }, (args) => {
        kit.reads(args.path);
        return undefined;
      });
    },
  };
  configurations(path.dirname(file), kit.reads);
  const input = request.text === null
    ? { entryPoints: [file] }
    : {
      stdin: {
        contents: request.text,
        sourcefile: path.relative('', file),
        resolveDir: path.dirname(file),
        loader: options.loader?.[path.extname(file)] ?? path.extname(file).slice(1),
      },
    };
  let result;
  try {
    result = await esbuild.build({
      ...options,
      ...input,
      outfile: path.join(path.dirname(file), path.basename(request.output)),
      absWorkingDir: process.cwd(),
      write: false,
      metafile: true,
      logLevel: 'silent',
      plugins: options.bundle ? [listener] : [],
    });
  } catch (error) {
    for (const each of error.warnings ?? []) kit.warn(placed(each));
    if (error.errors?.length > 0) throw placed(error.errors[0]);
    throw error;
  }
  for (const each of result.warnings) kit.warn(placed(each));
  for (const name of Object.keys(result.metafile.inputs)) {
    const read = path.resolve(name.replace(/^[a-z-]+:(?=.)/, ''));
    kit.reads(read);
    configurations(path.dirname(read), kit.reads);
  }
  const files = {};
  for (const each of result.outputFiles) files[path.basename(each.path)] = each.text;
  return { files };
};

/** Where esbuild looks for what a module imports, as far as it can be said from the name. */
function candidates(name, folder, reads) {
  const around = (base) => {
    reads(base);
    for (const extension of EXTENSIONS) reads(base + extension);
    if (/\.jsx?$/.test(base)) for (const t of ['.ts', '.tsx']) reads(base.replace(/\.jsx?$/, t));
    reads(path.join(base, 'package.json'));
    for (const extension of EXTENSIONS) reads(path.join(base, `index${extension}`));
  };
  if (/^\.{0,2}\//.test(name) || name === '.' || name === '..') {
    around(path.resolve(folder, name));
  } else if (!/^[a-z]+:/.test(name)) {
    for (let at = folder; ; at = path.dirname(at)) {
      around(path.join(at, 'node_modules', name));
      const packaged = /^(@[^/]+\/)?[^/]+/.exec(name)?.[0];
      if (packaged) reads(path.join(at, 'node_modules', packaged, 'package.json'));
      if (at === path.dirname(at)) break;
    }
  }
}

/** Configuration files of a folder and of those above it. */
function configurations(folder, reads) {
  for (let at = folder; ; at = path.dirname(at)) {
    reads(path.join(at, 'tsconfig.json'));
    reads(path.join(at, 'package.json'));
    if (at === path.dirname(at)) break;
  }
}

function placed({ text, location, notes }) {
  const more = (notes ?? []).map((note) => `; ${note.text}`).join('');
  if (!location) return { message: text + more };
  return {
    message: text + more,
    file: path.resolve(location.file),
    line: location.line,
    column: location.column + 1,
  };
}
