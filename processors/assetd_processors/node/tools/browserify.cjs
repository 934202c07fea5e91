// CommonJS modules to one script.
//
// {path, text, options} -> {code, modules}; `text` stands for a file that is not there

'use strict';

const path = require('path');
const { Readable } = require('stream');

module.exports = async (request, kit) => {
  const browserify = kit.load('browserify');
  const bundle = browserify({ basedir: process.cwd(), ...request.options });
  if (request.text === null) {
    bundle.add(request.path);
  } else {
    bundle.add(Readable.from([request.text]), {
      file: request.path,
      basedir: path.dirname(request.path),
    });
  }
  const modules = new Set();
  bundle.on('file', (file) => modules.add(file));
  const code = await new Promise((resolve, reject) => {
    // Streams of the pipeline report here too; the first error is the cause.
    bundle.on('error', (error) => reject(placed(error)));
    bundle.bundle((error, made) => (error ? reject(placed(error)) : resolve(made)));
  });
  for (const file of modules) kit.reads(file);
  return { code: code.toString(), modules: [...modules] };
};

function placed(error) {
  const message = (error.message || String(error)).replace(/ \(\d+:\d+\)(?= while parsing| *$)/, '');
  const file = error.filename ?? error.fileName ?? null;
  return {
    message: file === null ? message : message.replace(` while parsing ${file}`, ''),
    file,
    line: error.line ?? null,
    column: error.column ?? null,
  };
}
