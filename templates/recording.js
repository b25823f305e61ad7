"use strict";
// A link to a window opens its trace, which a browser does by itself only where what it looks for is inside.
function open() {
  const found = document.getElementById(location.hash.slice(1));
  if (!(found instanceof HTMLDetailsElement)) return;
  found.open = true;
  found.scrollIntoView();
  found.querySelector("summary").focus({ preventScroll: true });
}
addEventListener("hashchange", open);
open();
