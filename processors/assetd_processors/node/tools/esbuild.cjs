// Modern JavaScript and TypeScript to what browsers run.
//
// {path, text, output, options} -> {files: {name: text}}
//
// Options are those of esbuild's JavaScript API.  `text` stands for what is in the file.

'use strict';

const path = require('path');
const { lookFor, lookUp } = require('../resolution.cjs');
const { trace } = require('../trace.cjs');

const SUFFIXES = ['.tsx', '.ts', '.jsx', '.js', '.css', '.json'];
const CONFIGURATIONS = ['tsconfig.json', 'package.json'];

module.exports = async (request, kit) => {
  const esbuild = kit.load('esbuild');
  const { path: file, options } = request;
  const suffix = path.extname(file);
  // esbuild is a process of its own: what it asks for, it says only to a plugin.
  const listener = {
    name: 'assetd',
    setup(build) {
      build.onResolve({ filter: /.*/ }, (args) => {
        if (args.resolveDir) lookFor(args.path, args.resolveDir, SUFFIXES);
        return undefined;
      });
      build.onLoad({ filter: /.*/ }, (args) => {
        kit.reads(args.path);
        // It would wait for somebody to write to a FIFO.
        return trace.isNoFile(args.path) ? { errors: [{ text: 'not a regular file' }] } : undefined;
      });
    },
  };
  lookUp(CONFIGURATIONS, path.dirname(file));
  const input = request.text === null
    ? { entryPoints: [file] }
    : {
      stdin: {
        contents: request.text,
        sourcefile: file,
        resolveDir: path.dirname(file),
        loader: options.loader?.[suffix] ?? suffix.replace(/^\.m?/, ''),
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
  const folders = new Set();
  for (const name of Object.keys(result.metafile.inputs)) {
    const read = path.resolve(name.replace(/^[a-z-]+:(?=.)/, ''));
    kit.reads(read);
    folders.add(path.dirname(read));
  }
  for (const folder of folders) lookUp(CONFIGURATIONS, folder);
  const files = {};
  for (const each of result.outputFiles) files[path.basename(each.path)] = each.text;
  return { files };
};

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
