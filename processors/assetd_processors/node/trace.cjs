// Which files a tool reads, and which it looks for in vain.
//
// Tools report at best what they read.  What they did not find matters as much: when it appears,
// the result may be another one.  So we listen to `fs` itself, before any tool is loaded.

'use strict';

const fs = require('fs');
const path = require('path');
const { fileURLToPath } = require('url');

const LISTENED = [
  'access', 'createReadStream', 'exists', 'lstat', 'open', 'readFile', 'stat',
];
const OPENING = ['createReadStream', 'open', 'readFile'];
const lstat = fs.lstatSync;
const stat = fs.statSync;
const seen = new Set();
let active = false;
let project = '/';
let hidden = [];
let tell = () => {};

for (const name of LISTENED) {
  listen(fs, name);
  listen(fs, `${name}Sync`);
  listen(fs.promises, name);
}

function listen(owner, name) {
  const original = owner[name];
  if (typeof original !== 'function') return;
  const opens = OPENING.some((each) => name.startsWith(each));
  const listening = function (file, ...rest) {
    if (active) add(file);
    // A FIFO would keep us waiting, a device might never end.  With a slash behind it the
    // kernel refuses either, and the tool hears of that in its own way.
    const name = active && opens && isNoFile(file) ? `${file}/` : file;
    return original.call(this, name, ...rest);
  };
  // `promisify` and friends look for more than a function.
  owner[name] = Object.defineProperties(listening, Object.getOwnPropertyDescriptors(original));
}

function add(file) {
  let name = file;
  if (name instanceof URL) {
    if (name.protocol !== 'file:') return;
    name = fileURLToPath(name);
  } else if (Buffer.isBuffer(name)) {
    name = name.toString();
  }
  if (typeof name !== 'string') return;
  const found = path.resolve(name);
  if (seen.has(found)) return;
  seen.add(found);
  if (counts(found)) tell(found);
}

/** Whether something is there that is neither a file nor a folder. */
function isNoFile(file) {
  const found = typeof file === 'string' ? look(file, stat) : undefined;
  return found !== undefined && !found.isFile() && !found.isDirectory();
}

/** Listen, and `hear` at once of each file: a tool that hangs tells nothing later. */
function start(cwd, hide, hear) {
  seen.clear();
  project = cwd;
  hidden = hide;
  tell = hear;
  active = true;
}

function isBelow(file, folder) {
  return file === folder || file.startsWith(folder.endsWith('/') ? folder : `${folder}/`);
}

function look(file, how) {
  try {
    return how(file, { throwIfNoEntry: false });
  } catch {
    return undefined; // a file stands where a folder should, or we may not look
  }
}

/** Whether something that is not there is only looked for on the way up from the project. */
function isFarAbove(file) {
  let folder = path.dirname(file);
  while (look(folder, stat) === undefined) folder = path.dirname(folder);
  return folder !== project && isBelow(project, folder);
}

/** Whether a result may come from a path that was read or looked for. */
function counts(file) {
  if (hidden.some((folder) => isBelow(file, folder))) return false;
  // Devices are no files; a project may lie in /dev/shm all the same.
  if (/^\/(dev|proc|sys)\//.test(file) && !isBelow(file, project)) return false;
  const found = look(file, stat);
  if (found !== undefined) return !found.isDirectory();
  return look(file, lstat) !== undefined || !isFarAbove(file);
}

/** Every file that was read, and every path where a file would have been. */
function end() {
  active = false;
  const files = [...seen].filter(counts);
  seen.clear();
  return files;
}

module.exports = { trace: { add, start, end, isNoFile } };
