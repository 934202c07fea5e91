// CommonJS modules to one script.
//
// {path, text, options} -> {code}; `text` stands for a file that is not there.

'use strict';

const fs = require('fs');
const path = require('path');
const { Readable } = require('stream');
const { lookFor } = require('../resolution.cjs');

module.exports = async (request, kit) => {
  const browserify = kit.load('browserify');
  const { options } = request;
  const suffixes = ['.js', '.json', ...(options.extensions ?? [])];
  const bundle = browserify({ basedir: process.cwd(), ...options });
  if (request.text === null) {
    bundle.add(request.path);
  } else {
    bundle.add(Readable.from([request.text]), {
      file: request.path,
      basedir: path.dirname(request.path),
    });
  }
  bundle.pipeline.get('deps').on('data', (row) => {
    kit.reads(row.file);
    for (const name of Object.keys(row.deps ?? {})) lookFor(name, path.dirname(row.file), suffixes);
  });
  const code = await new Promise((resolve, reject) => {
    // Streams of the pipeline report here too; the first error is the cause.
    bundle.on('error', reject);
    bundle.bundle((error, made) => (error ? reject(error) : resolve(made)));
  }).catch((error) => { throw placed(error, suffixes); });
  return { code: code.toString() };
};

function placed(error, suffixes) {
  const text = (error.message || String(error)).replace(/^Can't walk dependency graph: /, '');
  const lost = /^Cannot find module '(.+?)' from '(.+?)'/.exec(text);
  if (lost !== null) {
    const [, name, file] = lost;
    lookFor(name, path.dirname(file), suffixes);
    return { message: `cannot find module '${name}'`, file, line: lineOf(file, name) };
  }
  const broken = /^Parsing file (.+?): (.*?) \((\d+):(\d+)\)$/s.exec(text);
  if (broken !== null) {
    const [, file, message, line, column] = broken;
    return { message, file, line: Number(line), column: Number(column) + 1 };
  }
  const annotated = /^\n(.+):(\d+)\n/.exec(error.annotated ?? '');
  return {
    message: text,
    file: annotated?.[1] ?? error.filename ?? null,
    line: annotated === null ? null : Number(annotated[2]),
    column: error.column ?? null,
  };
}

/** The line of a file that names a module in quotes. */
function lineOf(file, name) {
  try {
    const lines = fs.readFileSync(file, 'utf8').split('\n');
    const at = lines.findIndex((line) => line.includes(`'${name}'`) || line.includes(`"${name}"`));
    return at < 0 ? null : at + 1;
  } catch {
    return null;
  }
}
