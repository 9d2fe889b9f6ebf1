"use strict";
// Draws every figure from its data block, in the colours of the page; draws them again when the page turns dark or light.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const text = style.getPropertyValue("--text").trim(), line = style.getPropertyValue("--line").trim();
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line };
    return { text: text, axis: axis };
  }
  function draw(block) {
    const figure = JSON.parse(block.textContent), look = colours();
    const layout = Object.assign({}, figure.layout, { font: Object.assign({}, figure.layout.font, { color: look.text }), autosize: true });
    layout.xaxis = Object.assign({}, layout.xaxis, look.axis);
    layout.yaxis = Object.assign({}, layout.yaxis, look.axis);
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    return Plotly.react(document.getElementById(block.dataset.figure), figure.data, layout, options);
  }
  function all() {
    return Promise.all(Array.from(document.querySelectorAll("script[data-figure]"), draw)).then(function () {
      document.documentElement.dataset.drawn = "yes";
    });
  }
  dark.addEventListener("change", all);
  window.addEventListener("beforeprint", function () { document.querySelectorAll(".plot").forEach(function (e) { Plotly.Plots.resize(e); }); });
  all();
})();
