// SVG to less SVG.
//
// {path, text, config} -> {svg}

'use strict';

module.exports = async (request, kit) => {
  const { optimize } = kit.load('svgo');
  try {
    return { svg: optimize(request.text, { ...request.config, path: request.path }).data };
  } catch (error) {
    const { reason, line, column } = error;
    throw reason === undefined ? error : { message: reason, line, column };
  }
};
