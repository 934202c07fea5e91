// One warm Node process for all tools of a worker; `tool_server.py` starts and ends it.
//
// Started as `node server.cjs PACKAGES FD`.  Requests come and answers go as JSON lines over the
// socket FD, one request at a time; what tools print to stdout and stderr is nobody's protocol.
// It ends when the socket does.
//
//   {"id": 1, "tool": "less", "cwd": "/site", "hide": ["/tmp/x"], "request": {...}}
//   {"id": 1, "read": "/site/css/a.less"}
//   {"id": 1, "value": {...}, "warnings": [...], "reads": ["/site/css/a.less", ...]}
//   {"id": 1, "error": {"message": "...", "file": null, "line": null, "column": null}, ...}
//
// `reads` names every file that was read or looked for and is not there, also when the tool
// fails; `read` names one as soon as that happens, in case the tool never comes to an end.  `spoiled` in an answer asks for a fresh process.  A tool is a module in `tools/`, or
// anywhere else by its absolute path, which exports an async function of the request.

'use strict';

const fs = require('fs');
const { createRequire, syncBuiltinESMExports } = require('module');
const net = require('net');
const path = require('path');
const v8 = require('v8');
const { trace } = require('./trace.cjs');

const OLDEST_NODE = 18;

// V8 optimises early, for pages that stay: in the first hundred small files that cost twice the
// work itself.  Four times its patience halved that.  Large files come out sooner the first time
// (jquery by UglifyJS in 1.0 s instead of 1.4 s), and a little later when they come again (0.63 s
// instead of 0.55 s).  A V8 that does not know the flag says so in the log and goes on.
v8.setFlagsFromString('--interrupt-budget=500000');

const packages = process.argv[2];
const end = process.exit.bind(process);
const fd = Number(process.argv[3]);
const pipe = new net.Socket({ fd, readable: true, writable: true });
const handlers = new Map();
let current = null;

syncBuiltinESMExports();
const fromPackages = createRequire(path.join(packages, 'package.json'));

process.exit = (code) => {
  throw new Error(`the tool wanted to end its process (exit code ${code ?? 0})`);
};
// An error that no promise of the tool leads to us: it may have broken more than its request.
process.on('uncaughtException', (error) => answer(current, { error: told(error), spoiled: true }));
process.on('unhandledRejection', (error) => answer(current, { error: told(error), spoiled: true }));

/** What a handler works with besides the request. */
const kit = {
  /** A CommonJS package from the tools' folder. */
  load: (name) => {
    try {
      return fromPackages(name);
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND' || !error.message.includes(`'${name}'`)) throw error;
      throw new Error(`${name} is not installed: run \`assetd tools install\``);
    }
  },
  /** Tell people something that does not make the result wrong. */
  warn: (warning) => current?.warnings.push(typeof warning === 'string' ? { message: warning } : warning),
  /** The result comes from this file too, whether or not it is there. */
  reads: (file) => trace.add(file),
};

function handler(tool) {
  if (path.isAbsolute(tool)) return require(tool); // a plugin's: `forget` drops it, it may be edited
  let found = handlers.get(tool);
  if (found === undefined) {
    found = require(`./tools/${tool}.cjs`);
    handlers.set(tool, found);
  }
  return found;
}

async function serve(message) {
  const task = { id: message.id, warnings: [] };
  current = task;
  try {
    if (parseInt(process.versions.node, 10) < OLDEST_NODE) {
      throw new Error(`Node ${process.versions.node} is too old: ${OLDEST_NODE} or later is needed`);
    }
    process.chdir(message.cwd);
    const handle = handler(message.tool); // before we listen: its own modules are no reads
    trace.start(message.cwd, [packages, __dirname, ...message.hide], (file) => hint(task, file));
    const value = await handle(message.request, kit);
    answer(task, { value });
  } catch (error) {
    answer(task, { error: told(error) });
  }
  forget();
}

function answer(task, result) {
  if (task === null || task !== current) return; // answered already
  current = null;
  const { id, warnings } = task;
  const text = JSON.stringify({ id, ...result, warnings, reads: trace.end() }, wellFormed);
  pipe.write(`${text}\n`);
}

/** Say what the task reads, now: the answer may never come. */
function hint({ id }, read) {
  const data = Buffer.from(`${JSON.stringify({ id, read }, wellFormed)}\n`);
  for (let at = 0; at < data.length; ) {
    try {
      at += fs.writeSync(fd, data, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') return; // it is full until the worker has read some of it
    }
  }
}

/** Drop the user's modules (plugins, transforms), so that an edited one is loaded anew. */
function forget() {
  const ours = [packages + path.sep, __dirname + path.sep];
  for (const file of Object.keys(require.cache)) {
    if (!ours.some((folder) => file.startsWith(folder)) && !handlers.has(file)) {
      delete require.cache[file];
    }
  }
}

/** Half a surrogate pair cannot be UTF-8. */
function wellFormed(_key, value) {
  return typeof value === 'string' ? Buffer.from(value).toString() : value;
}

function told(error) {
  if (typeof error !== 'object' || error === null) return { message: String(error) };
  const { file = null, line = null, column = null } = error;
  return { message: String(error.message || error), file, line, column };
}

const parts = [];
pipe.on('data', (data) => {
  let rest = data;
  for (let at = rest.indexOf(10); at >= 0; at = rest.indexOf(10)) {
    parts.push(rest.subarray(0, at));
    rest = rest.subarray(at + 1);
    const line = Buffer.concat(parts.splice(0)).toString();
    serve(JSON.parse(line));
  }
  if (rest.length > 0) parts.push(rest);
});
pipe.on('error', () => end(0));
pipe.on('close', () => end(0));
