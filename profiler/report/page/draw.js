// Unpacks the plotting library and draws every figure from its data block. Colours of text and grid are the style sheet's (light, dark,
// paper), so nothing is drawn again when they change; a viewBox lets paper scale what a screen drew.
(function () {
  const figures = [];
  async function unpack() {
    const block = document.getElementById("plotly");
    if (!block) return;
    const bytes = Uint8Array.from(atob(block.textContent), function (letter) { return letter.charCodeAt(0); });
    block.remove();
    const script = document.createElement("script");
    script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(script);
  }
  function scalable(plot) {
    const width = plot.clientWidth, height = plot.clientHeight;
    if (!width || !height) return;
    plot.style.setProperty("--ratio", width + " / " + height);
    plot.querySelectorAll("svg.main-svg").forEach(function (svg) { svg.setAttribute("viewBox", "0 0 " + width + " " + height); });
  }
  async function draw(block) {
    const figure = JSON.parse(block.textContent), plot = document.getElementById(block.dataset.figure);
    const layout = Object.assign({}, figure.layout, { autosize: true });
    await Plotly.newPlot(plot, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
    plot.on("plotly_afterplot", function () { scalable(plot); });
    plot.on("plotly_click", function (event) {
      const data = event.points[0].customdata, meta = event.points[0].data.meta;
      if (Array.isArray(data)) window.openRun(data[data.length - 1]);
      else if (meta && meta.run) window.openRun(meta.run);
    });
    scalable(plot);
    figures.push({ plot: plot, metas: figure.data.map(function (trace) { return trace.meta || null; }) });
  }
  function shown(meta, sets) {
    return !meta || Object.keys(sets).every(function (name) { return !(name in meta) || !sets[name].has(meta[name]); });
  }
  function filter(sets) {
    figures.forEach(function (figure) {
      const left = figure.metas.map(function (meta) { return shown(meta, sets); });
      const told = figure.metas.some(Boolean), any = figure.metas.some(function (meta, number) { return meta && left[number]; });
      figure.plot.closest("figure").hidden = told && !any;
      if (!figure.plot.data.every(function (trace, number) { return (trace.visible !== false) === left[number]; })) Plotly.restyle(figure.plot, { visible: left });
      if (figure.plot.offsetParent) Plotly.Plots.resize(figure.plot);
    });
  }
  async function all() {
    try {
      await unpack();
      for (const block of document.querySelectorAll("script[data-figure]")) {
        await draw(block);
        await new Promise(function (next) { setTimeout(next); });
      }
    } catch (error) {
      document.querySelectorAll(".plot").forEach(function (plot) {
        if (!plot.childElementCount) plot.textContent = "This browser could not draw the figure (" + error + "); “As text” below has its numbers.";
      });
    }
    document.addEventListener("filtered", function (event) { filter(event.detail); });
    filter(window.filterSets);
    document.documentElement.dataset.drawn = "yes";
  }
  all();
})();
