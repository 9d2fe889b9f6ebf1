// Filters by model, backend and workload. The address's fragment holds them (#backend=A&at=run-…), so an address is a permalink;
// a fragment without "=" is the id of a place, as always.
(function () {
  const form = document.getElementById("filters");
  const names = Array.from(form.querySelectorAll("fieldset"), function (set) { return set.dataset.filter; });
  const boxes = function (name) { return Array.from(form.querySelectorAll("input")).filter(function (box) { return box.name === name; }); };
  let sorted = "", place = "";

  function values(name, checked) {
    return new Set(boxes(name).filter(function (box) { return box.checked === checked; }).map(function (box) { return box.value; }));
  }
  function filtering() {
    return names.some(function (name) { return boxes(name).some(function (box) { return !box.checked; }); });
  }
  function fragment(at) {
    if (!filtering() && !sorted) return at;
    const state = new URLSearchParams();
    names.forEach(function (name) {
      const chosen = values(name, true);
      if (chosen.size === boxes(name).length) return;
      if (chosen.size === 0) state.append(name, "");
      chosen.forEach(function (value) { state.append(name, value); });
    });
    if (sorted) state.set("sort", sorted);
    if (at) state.set("at", at);
    return state.toString();
  }
  function remember() {
    history.replaceState(null, "", "#" + fragment(place));
  }
  function apply() {
    // What was taken out, not what is left: a row of the whole store may be of what has no box.
    const sets = {};
    names.forEach(function (name) { sets[name] = values(name, false); });
    document.querySelectorAll("[data-model], [data-backend], [data-workload]").forEach(function (element) {
      element.hidden = names.some(function (name) { return name in element.dataset && sets[name].has(element.dataset[name]); });
    });
    const runs = Array.from(document.querySelectorAll("details.run")), left = runs.filter(function (run) { return !run.hidden; }).length;
    document.getElementById("shown").textContent = filtering()
      ? left + " of " + runs.length + " runs shown; answers and captions are about all of them"
      : runs.length + " runs";
    window.filterSets = sets;
    document.dispatchEvent(new CustomEvent("filtered", { detail: sets }));
  }
  function goTo(id) {
    document.querySelectorAll(".at").forEach(function (old) { old.classList.remove("at"); });
    const target = id && document.getElementById(id);
    if (!target) return;
    if (target.closest("[hidden]")) { form.reset(); apply(); remember(); }
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    target.classList.add("at");
    if (!target.hasAttribute("tabindex")) target.setAttribute("tabindex", "-1");
    target.focus({ preventScroll: true });
    target.scrollIntoView();
  }
  function read() {
    const text = location.hash.slice(1), state = new URLSearchParams(text.includes("=") ? text : "");
    place = text.includes("=") ? state.get("at") || "" : decodeURIComponent(text);
    names.forEach(function (name) {
      const wanted = new Set(state.getAll(name)), all = boxes(name);
      const known = wanted.has("") || all.some(function (box) { return wanted.has(box.value); });
      all.forEach(function (box) { box.checked = !known || wanted.has(box.value); });
    });
    sorted = state.get("sort") || "";
    const parts = sorted.split("."), table = document.getElementById(parts[0]);
    if (table && table.matches("table.sortable") && table.tHead.rows[0].cells[Number(parts[1])]) window.sortTable(table, Number(parts[1]), parts[2] === "down");
    else sorted = "";
    apply();
    goTo(place);
  }
  window.openRun = function (run) { location.hash = fragment("run-" + run); };

  form.hidden = names.length === 0;
  form.addEventListener("change", function () { place = ""; remember(); apply(); });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("reset", function () { setTimeout(function () { remember(); apply(); }); });
  document.addEventListener("sorted", function (event) {
    if (!event.detail.table) return;
    sorted = event.detail.table + "." + event.detail.column + (event.detail.descending ? ".down" : ".up");
    remember();
  });
  document.addEventListener("click", function (event) {
    const link = event.target.closest && event.target.closest("a[href^='#']");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const next = fragment(link.getAttribute("href").slice(1));
    if ("#" + next === location.hash) read();
    else location.hash = next;
  });
  window.addEventListener("hashchange", read);
  read();
})();
