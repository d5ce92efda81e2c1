"use strict";
// The page reads without this; it adds the filters and opens the cells of the confusion matrix.
(() => {
  const FIRST = 60; // pictures shown before "Show all": more make a phone's page endless
  const items = [...document.querySelectorAll("#gallery > li")];
  const filters = document.getElementById("filters");
  const more = document.getElementById("more");
  let all = false;

  function matches(item, digit, read) {
    return (digit === "" || item.dataset.true === digit) && (read === "" || item.dataset.read === read);
  }

  function filter() {
    const digit = filters.elements.true.value, read = filters.elements.read.value;
    let found = 0, visible = 0;
    for (const item of items) {
      const match = matches(item, digit, read);
      found += match;
      item.hidden = !match || (!all && found > FIRST);
      visible += !item.hidden;
    }
    document.getElementById("shown").value = `${visible} of ${found} shown`;
    more.hidden = visible === found;
  }

  if (filters) {
    filters.hidden = false;
    filters.addEventListener("change", () => { all = false; filter(); });
    filters.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => { all = true; filter(); });
    filter();
  }

  const dialog = document.getElementById("cell");
  for (const link of dialog ? document.querySelectorAll(".matrix a") : []) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const { true: digit, read, count } = link.dataset;
      const source = digit === read ? document.querySelectorAll("#doubtful > li") : items;
      const found = [...source].filter((item) => matches(item, digit, read)).map((item) => item.cloneNode(true));
      for (const item of found) item.hidden = false;
      document.getElementById("cell-title").textContent = link.getAttribute("aria-label").split(":")[0];
      document.getElementById("cell-note").textContent = digit === read
        ? `${count} rows; the ${found.length} least confident` : `${count} rows; ${found.length} pictured, the most confident first`;
      dialog.querySelector(".gallery").replaceChildren(...found);
      dialog.showModal();
    });
  }
  if (dialog) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
})();
