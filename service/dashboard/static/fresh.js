// Keeps a page that runs on up to date, as long as it says that it is live.

import { refresh } from "./swap.js";

const SECONDS = 4;

async function again() {
  if (!document.hidden && document.querySelector("[data-live]")) {
    try {
      await refresh();
    } catch {
      // the service is away; the next time, perhaps
    }
  }
  setTimeout(again, SECONDS * 1000);
}
setTimeout(again, SECONDS * 1000);
