"use strict";
// Asks now and then whether the run has gone on, and puts what is new in the place of what is there.
(() => {
  const every = 2000;
  const told = document.getElementById("following");
  const parts = ["header", "main", "#data"];
  let seen = null;

  const opened = () => [...document.querySelectorAll("details")].map((part) => part.open);

  const renew = (page) => {
    const were = opened();
    for (const part of parts) document.querySelector(part).replaceWith(page.querySelector(part));
    const details = document.querySelectorAll("details");
    if (details.length === were.length) details.forEach((part, index) => (part.open = were[index]));
    document.title = page.title;
    document.dispatchEvent(new Event("renewed"));
  };

  const look = async () => {
    const answer = await fetch(location.pathname, { cache: "no-cache" });
    const tag = answer.headers.get("ETag");
    if (tag !== seen) {
      renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
      told.textContent = `Following the run: last change at ${new Date().toLocaleTimeString()}.`;
      seen = tag;
    }
    if (answer.headers.get("X-Run-Ended") === "yes") {
      told.textContent = "The run has ended.";
      return;
    }
    setTimeout(again, every);
  };

  const again = () => look().catch(() => {
    told.textContent = "Nobody answers any more: following was stopped. This is the last that was seen.";
  });
  setTimeout(again, every);
})();
