"use strict";
// Asks every two seconds whether the run has changed, and replaces the parts of the page.
(() => {
  const every = 2000;
  const status = document.getElementById("following");
  const parts = ["header", "main", "#data"];
  let seen = null;

  const opened = () => [...document.querySelectorAll("details")].map((part) => part.open);

  const renew = (page) => {
    const before = opened();
    for (const part of parts) document.querySelector(part).replaceWith(page.querySelector(part));
    const details = document.querySelectorAll("details");
    if (details.length === before.length) details.forEach((part, index) => (part.open = before[index]));
    document.title = page.title;
    document.dispatchEvent(new Event("renewed"));
  };

  const update = async () => {
    const answer = await fetch(location.pathname, { cache: "no-cache" });
    const tag = answer.headers.get("ETag");
    if (tag !== seen) {
      renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
      status.textContent = `Following the run: last change at ${new Date().toLocaleTimeString()}.`;
      seen = tag;
    }
    if (answer.headers.get("X-Run-Ended") === "yes") {
      status.textContent = "The run has ended.";
      return;
    }
    setTimeout(again, every);
  };

  const again = () => update().catch(() => {
    status.textContent = "The server has stopped. This is the last update.";
  });
  setTimeout(again, every);
})();
