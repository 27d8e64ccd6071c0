// The list of jobs: refreshes while any job runs; two or more can be compared.

import { onSwap, refresh } from "./swap.js";

const part = document.getElementById("part-jobs");

function ready() {
  const button = document.getElementById("compare");
  if (button) button.disabled = part.querySelectorAll("input[name=jobs]:checked").length < 2;
}
part.addEventListener("change", ready);
onSwap(ready);
ready();

const chosen = () => part.querySelector("input[name=jobs]:checked") !== null;
if (part.dataset.live !== undefined) setInterval(() => document.hidden || chosen() || refresh(), 3000);
