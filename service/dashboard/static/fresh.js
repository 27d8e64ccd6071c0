// Refreshes a page while it has the attribute data-live.

import { refresh } from "./swap.js";

const SECONDS = 4;

async function again() {
  if (!document.hidden && document.querySelector("[data-live]")) {
    try {
      await refresh();
    } catch {
      // the service cannot be reached: try again next time
    }
  }
  setTimeout(again, SECONDS * 1000);
}
setTimeout(again, SECONDS * 1000);
