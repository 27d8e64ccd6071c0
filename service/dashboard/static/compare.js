// Jobs side by side: the best score so far over what was spent.

import { chart, colour, series } from "./plot.js";

const section = document.getElementById("compared");
const over = document.getElementById("over");
const lands = await Promise.all(section.dataset.jobs.split(",").map(async (id) => {
  const answer = await fetch(`/v1/fine_tuning/jobs/${id}/landscape`);
  return { id, ...(await answer.json()) };
}));

function best() {
  const traces = lands.map((land, k) => {
    const better = land.lower_is_better ? Math.min : Math.max;
    const [x, y, text] = [[], [], []];
    let spent = 0;
    let sofar = null;
    land.number.forEach((number, i) => {
      spent += land.device_seconds[i];
      if (land.score[i] === null) return;
      sofar = sofar === null ? land.score[i] : better(sofar, land.score[i]);
      x.push(over.value === "seconds" ? spent : number);
      y.push(sofar);
      text.push(`#${number} ${land.summary[i]}`);
    });
    x.push(over.value === "seconds" ? spent : land.number.at(-1));
    y.push(sofar);
    text.push("");
    return {
      x, y, text, mode: "lines+markers", line: { shape: "hv", width: 2, color: series(k) }, marker: { size: 5 },
      hovertemplate: `%{text}<br>%{y:.4g} ${land.unit}<extra></extra>`,
    };
  });
  const units = [...new Set(lands.map((land) => land.unit))];
  if (!lands.some((land) => land.number.length)) return { empty: "No trial has been scored yet." };
  return {
    traces,
    layout: {
      x: { title: over.value === "seconds" ? "device-seconds" : "trial", rangemode: "tozero" },
      y: { title: units.length === 1 ? units[0] : "score", nticks: 6 },
      shapes: lands.filter((land) => land.base !== null).map((land) => ({
        type: "line", xref: "paper", x0: 0, x1: 1, y0: land.base, y1: land.base,
        line: { color: series(lands.indexOf(land)), width: 1, dash: "dot" },
      })),
      annotations: lands.length && lands[0].base !== null ? [{
        text: "untuned base", xref: "paper", x: 1, y: lands[0].base, showarrow: false, xanchor: "right", yanchor: "bottom",
        font: { size: 11.5, color: colour("soft") },
      }] : [],
    },
  };
}

const redraw = chart(document.getElementById("chart-best"), best);
over.addEventListener("change", redraw);
section.dataset.ready = "";
