"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const places = document.querySelectorAll(".chart");
  const sync = uPlot.sync("steps");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => String(Number(value.toPrecision(3)));
  const texts = {
    number: short,
    percent: (value) => `${short(100 * value)} %`,
    tokens: (value) => short(value),
    seconds: (value) => `${short(value)} s`,
    gib: (value) => `${short(value)} GiB`,
  };

  // The 95 % intervals of the evaluations: a vertical line through each point.
  const drawWhiskers = (chart) => (plot) => {
    const context = plot.ctx;
    context.save();
    context.lineWidth = 1.5 * devicePixelRatio;
    for (const { step, low, high, series } of chart.whiskers) {
      if (!plot.series[series + 1]?.show || step < plot.scales.x.min || step > plot.scales.x.max) continue;
      // Two of one step stand beside each other.
      const x = plot.valToPos(step, "x", true) + 4 * (series - 1) * devicePixelRatio;
      context.strokeStyle = colour(`--c${series}`);
      context.beginPath();
      context.moveTo(x, plot.valToPos(low, "y", true));
      context.lineTo(x, plot.valToPos(high, "y", true));
      context.stroke();
    }
    context.restore();
  };

  // Where nothing is pointed at, the legend holds the last values.
  const last = (values) => values.findLast((value) => value !== null);
  const shownValue = (value, text) => (value === null || value === undefined ? "–" : text(value));

  const lowest = (chart, least) => (chart.unit === "number" ? least : Math.min(0, least));
  const range = (chart) => (plot, least, most) => {
    if (least === null) return [0, 1];
    const highs = chart.whiskers.map((whisker) => whisker.high);
    const top = Math.max(most, ...highs), bottom = lowest(chart, least);
    const room = 0.05 * (top - bottom) || Math.abs(top) * 0.1 || 1;
    return [chart.unit === "number" ? bottom - room : bottom, top + room];
  };

  const draw = (chart, place) => {
    const text = texts[chart.unit];
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const lines = chart.series.map((series, index) => ({
      label: series.label,
      stroke: colour(`--c${index % 6}`),
      width: series.are_points ? 1 : 2,
      dash: series.are_points ? [4, 4] : undefined,
      spanGaps: series.are_points,
      points: { show: series.are_points || series.values.length < 2, size: 8, fill: colour(`--c${index % 6}`) },
      value: (plot, value, which, at) => shownValue(at === null ? last(plot.data[which]) : value, text),
    }));
    return new uPlot(
      {
        width: place.clientWidth,
        height: 220,
        scales: { x: { time: false }, y: { range: range(chart) } },
        axes: [{ ...axis, size: 28 }, { ...axis, size: 64, values: (plot, ticks) => ticks.map(text) }],
        series: [{ label: "step", value: (plot, value, which, at) => at === null ? last(plot.data[0]) : value }, ...lines],
        cursor: { y: false, sync: { key: sync.key } },
        hooks: { draw: [drawWhiskers(chart)] },
      },
      [chart.steps, ...chart.series.map((series) => series.values)],
      place,
    );
  };

  let plots = [];
  const drawAll = () => {
    plots.forEach((plot) => plot.destroy());
    plots = charts.map((chart, index) => draw(chart, places[index]));
  };
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => {
    plots.forEach((plot, index) => plot.setSize({ width: places[index].clientWidth, height: 220 }));
  });
})();
