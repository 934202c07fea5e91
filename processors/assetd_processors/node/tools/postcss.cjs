// CSS through PostCSS with Autoprefixer.
//
// {path, text, output, map, chained, plugins, browsers} -> {css, map}

'use strict';

const path = require('path');

module.exports = async (request, kit) => {
  const postcss = kit.load('postcss');
  const plugins = request.plugins.map((name) => {
    if (name !== 'autoprefixer') throw new Error(`there is no plugin ${name} here`);
    // It remembers the configuration files that it has found.
    kit.load('browserslist').clearCaches();
    const browsers = request.browsers.length > 0 ? { overrideBrowserslist: request.browsers } : {};
    return kit.load('autoprefixer')(browsers);
  });
  try {
    const result = await postcss(plugins).process(request.text, {
      from: request.path,
      to: path.join(path.dirname(request.path), path.basename(request.output)),
      map: request.map ? { inline: false, annotation: true, prev: request.chained ?? false } : false,
    });
    for (const { text, line, column } of result.warnings()) kit.warn({ message: text, line, column });
    return { css: result.css, map: result.map ? result.map.toString() : null };
  } catch (error) {
    if (error.name !== 'CssSyntaxError') throw error;
    const { reason, file, line, column } = error;
    throw { message: reason, file, line, column };
  }
};
