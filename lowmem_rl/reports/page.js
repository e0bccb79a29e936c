"use strict";
(() => {
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
    for (const { x: place, low, high, series } of chart.whiskers) {
      if (!plot.series[series + 1]?.show || place < plot.scales.x.min || place > plot.scales.x.max) continue;
      // Two of one step are drawn next to each other.
      const x = plot.valToPos(place, "x", true) + 4 * (series - (chart.series.length - 1) / 2) * devicePixelRatio;
      context.strokeStyle = colour(`--c${series % 6}`);
      context.beginPath();
      context.moveTo(x, plot.valToPos(low, "y", true));
      context.lineTo(x, plot.valToPos(high, "y", true));
      context.stroke();
    }
    context.restore();
  };

  // What is between the lowest and the highest run, around their mean.
  const drawBands = (chart) => (plot) => {
    const context = plot.ctx;
    for (const { series, lows, highs } of chart.bands) {
      if (!plot.series[series + 1]?.show) continue;
      const known = chart.xs.map((x, at) => at).filter((at) => lows[at] !== null);
      if (known.length < 2) continue;
      const place = (at, ends) => [plot.valToPos(chart.xs[at], "x", true), plot.valToPos(ends[at], "y", true)];
      context.save();
      context.beginPath();
      context.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
      context.clip();
      context.globalAlpha = 0.15;
      context.fillStyle = colour(`--c${series % 6}`);
      context.beginPath();
      known.forEach((at) => context.lineTo(...place(at, highs)));
      known.reverse().forEach((at) => context.lineTo(...place(at, lows)));
      context.fill();
      context.restore();
    }
  };

  // Without a pointer the legend shows the last values.
  const last = (values) => values.findLast((value) => value !== null);
  const shownValue = (value, text) => (value === null || value === undefined ? "–" : text(value));

  const lowest = (chart, least) => (chart.unit === "number" ? least : Math.min(0, least));
  const range = (chart) => (plot, least, most) => {
    if (least === null) return [0, 1];
    const highs = [...chart.whiskers.map((whisker) => whisker.high), ...chart.bands.flatMap((band) => band.highs)];
    const lows = chart.bands.flatMap((band) => band.lows.filter((low) => low !== null));
    const top = Math.max(most, ...highs), bottom = lowest(chart, Math.min(least, ...lows));
    const room = 0.05 * (top - bottom) || Math.abs(top) * 0.1 || 1;
    return [chart.unit === "number" ? bottom - room : bottom, top + room];
  };

  // A step is a whole number.
  const whole = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 1e4, 2e4, 5e4, 1e5];

  const draw = (chart, place) => {
    const text = texts[chart.unit];
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const lines = chart.series.map((series, index) => ({
      label: series.label,
      stroke: colour(series.spans_gaps ? "--soft" : `--c${index % 6}`), // no series of its own: it joins others' points
      width: series.are_points ? 1 : 2,
      dash: series.are_points ? [4, 4] : index < 6 || series.spans_gaps ? undefined : [10, 4],
      spanGaps: series.are_points || series.spans_gaps || chart.along !== "step",
      // Colours repeat after six: then lines are dashed, and points hollow.
      points: {
        show: series.are_points || series.values.length < 2,
        size: series.size,
        fill: colour(index < 6 ? `--c${index % 6}` : "--ground"),
      },
      value: (plot, value, which, at) => shownValue(at === null ? last(plot.data[which]) : value, text),
    }));
    const doubling = chart.along === "k", steps = chart.along === "step";
    const roomy = chart.series.some((series) => series.size > 8) && ((plot, least, most) => {
      const room = 0.08 * (most - least) || Math.abs(most) * 0.1 || 1;  // for large points at the edges
      return [least - room, most + room];
    });
    return new uPlot(
      {
        width: place.clientWidth,
        height: 220,
        scales: { x: { time: false, ...(doubling && { distr: 3, log: 2, range: [chart.xs[0], chart.xs.at(-1)] }), ...(roomy && { range: roomy }) }, y: { range: range(chart) } },
        axes: [{ ...axis, size: 28, ...(doubling && { splits: () => chart.xs }), ...(steps && { incrs: whole }) }, { ...axis, size: 64, values: (plot, ticks) => ticks.map(text) }],
        series: [{ label: chart.along, value: (plot, value, which, at) => at === null ? last(plot.data[0]) : value }, ...lines],
        cursor: { y: false, sync: { key: steps ? sync.key : null } },
        hooks: { draw: [drawBands(chart), drawWhiskers(chart)] },
      },
      [chart.xs, ...chart.series.map((series) => series.values)],
      place,
    );
  };

  let plots = [], places = [];
  // Zoom and hidden series, by title: kept when the charts are drawn again.
  const choices = () => new Map(plots.map(({ title, plot, xs }) => {
    const { min, max } = plot.scales.x;
    const zoom = min > xs[0] || max < xs.at(-1) ? { min, max } : null;
    return [title, { zoom, off: plot.series.slice(1).filter((series) => !series.show).map((series) => series.label) }];
  }));
  const drawAll = () => {
    const charts = JSON.parse(document.getElementById("data").textContent);
    const earlier = choices();
    plots.forEach(({ plot }) => plot.destroy());
    places = document.querySelectorAll(".chart");
    plots = charts.map((chart, index) => ({ title: chart.title, xs: chart.xs, plot: draw(chart, places[index]) }));
    for (const { title, plot } of plots) {
      const { zoom, off } = earlier.get(title) ?? { zoom: null, off: [] };
      plot.series.forEach((series, index) => off.includes(series.label) && plot.setSeries(index, { show: false }));
      if (zoom) plot.setScale("x", zoom);
    }
  };
  drawAll();
  document.addEventListener("renewed", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => {
    plots.forEach(({ plot }, index) => plot.setSize({ width: places[index].clientWidth, height: 220 }));
  });
})();
