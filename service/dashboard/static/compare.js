// The best score so far of several jobs, by device time or trials.

import { chart } from "./chart.js";
import { figure, series } from "./plot.js";

const section = document.getElementById("compared");
const over = document.getElementById("over");
const lands = await Promise.all(section.dataset.jobs.split(",").map(async (id) => {
  const answer = await fetch(`/v1/fine_tuning/jobs/${id}/landscape`);
  return { id, ...(await answer.json()) };
}));

function best() {
  if (!lands.some((land) => land.number.length)) return { empty: "No trial has been scored yet." };
  const marks = lands.flatMap((land, k) => {
    const better = land.lower_is_better ? Math.min : Math.max;
    const [x, y, text] = [[], [], []];
    let spent = 0;
    let sofar = null;
    let seeds = 0; // of the best so far
    land.number.forEach((number, i) => {
      spent += land.device_seconds[i];
      if (land.score[i] === null) return;
      sofar = sofar === null ? land.score[i] : better(sofar, land.score[i]);
      if (sofar === land.score[i]) seeds = land.seeds[i];
      x.push(over.value === "seconds" ? spent : number);
      y.push(sofar);
      text.push([`#${number} ${land.summary[i]}`, ` (n=${seeds})`]);
    });
    x.push(over.value === "seconds" ? spent : land.number.at(-1));
    y.push(sofar);
    const look = { x, y, color: series(k) };
    return [
      { ...look, kind: "line", stepped: true, width: 2 },
      { ...look, kind: "dots", size: 5, says: (i) => `${text[i]?.[0] ?? ""}\n${figure(y[i])} ${land.unit}${text[i]?.[1] ?? ""}`.trim() },
    ];
  });
  const units = [...new Set(lands.map((land) => land.unit))];
  return {
    marks,
    rules: lands.filter((land) => land.base !== null).map((land, i) => ({
      y: land.base, color: series(lands.indexOf(land)), dash: "2 3", words: i ? undefined : "untuned base",
    })),
    x: { title: over.value === "seconds" ? "device-seconds" : "trial", zero: true },
    y: { title: units.length === 1 ? units[0] : "score" },
  };
}

const redraw = chart(document.getElementById("chart-best"), best);
over.addEventListener("change", redraw);
section.dataset.ready = "";
