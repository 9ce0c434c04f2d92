// Draws the rows of evaluation.html: filters, search, keys, links. Everything that comes from the
// data becomes text nodes. No comment or pattern here may look like a path: those are cut down
// when the page is published.
"use strict";
(() => {
  const sets = JSON.parse(document.getElementById("data").textContent);
  const ROWS_A_PAGE = 50;
  const LONG_VALUE = 24;
  const WIDE = 4;
  const RIGHT_TO_LEFT = /([\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+)/;
  const LABELS = {
    sql: { won: "Won", lost: "Lost", right: "Both right", wrong: "Both wrong", apart: "Not counted" },
    alone: { right: "Right", wrong: "Wrong", apart: "Not counted" },
    alpaca: { won: "Lower loss", lost: "Higher loss", even: "Equal loss", apart: "Not compared" },
  };
  const MARKS = {
    extra: ["ins", "[not in the gold: "],
    missing: ["del", "[only in the gold: "],
    other: ["mark", "[shares little with the gold: "],
  };
  const at = (id) => document.getElementById(id);
  const state = { set: 0, against: null, outcome: "", first: 0, current: null, printing: false };
  let shown = [];

  const theSet = () => sets[state.set];
  const isSql = () => theSet().type === "sql";
  const labels = () => LABELS[!isSql() ? "alpaca" : state.against === null ? "alone" : "sql"];

  function make(tag, text, className) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  // --- Which rows ------------------------------------------------------------------------------

  function outcomeOf(row) {
    const ours = row.answers[theSet().subject];
    const theirs = state.against === null ? null : row.answers[state.against];
    if (!isSql()) {
      if (!theirs || ours.loss === null || theirs.loss === null) return "apart";
      return ours.loss < theirs.loss ? "won" : ours.loss > theirs.loss ? "lost" : "even";
    }
    if (ours.right === null) return "apart";
    if (!theirs || ours.right === theirs.right) return ours.right ? "right" : "wrong";
    return ours.right ? "won" : "lost";
  }

  function wordsOf(row) {
    if (row.words === undefined) {
      const parts = [row.question, row.gold, row.complexity, row.kind, row.apart];
      if (row.context !== null) parts.push(theSet().contexts[row.context]);
      for (const answer of row.answers) {
        parts.push(answer.said, answer.flaw, answer.reply);
        parts.push(answer.spans.map(([kind, text]) => kind === "missing" ? "" : text).join(""));
      }
      row.words = parts.join("\n").toLowerCase();
    }
    return row.words;
  }

  function fits(row, wanted) {
    if (wanted.complexity && row.complexity !== wanted.complexity) return false;
    if (wanted.kind && row.kind !== wanted.kind) return false;
    if (wanted.error) {
      const [model, flaw] = wanted.error;
      if (row.answers[model].flaw !== flaw) return false;
    }
    return wanted.words.every((word) => wordsOf(row).includes(word));
  }

  function wantedRows() {
    return {
      complexity: at("complexity").value,
      kind: at("kind").value,
      error: at("error").value ? JSON.parse(at("error").value) : null,
      words: at("search").value.toLowerCase().split(" ").filter((word) => word),
    };
  }

  function update() {
    const wanted = wantedRows();
    const counts = {};
    const fitting = theSet().rows.filter((row) => fits(row, wanted));
    for (const row of fitting) {
      row.outcome = outcomeOf(row);
      counts[row.outcome] = (counts[row.outcome] || 0) + 1;
    }
    shown = fitting.filter((row) => !state.outcome || row.outcome === state.outcome);
    state.first = 0;
    state.current = null;
    drawOutcomes(counts, fitting.length);
    drawRows();
  }

  // --- Drawing ---------------------------------------------------------------------------------

  function drawOutcomes(counts, total) {
    const names = Object.entries({ "": "All", ...labels() });
    const seen = names.filter(([key]) => key !== "even" || counts.even || state.outcome === "even");
    const place = at("outcomes");
    const focused = document.activeElement && document.activeElement.dataset.outcome;
    place.replaceChildren(...seen.map(([key, label]) => {
      const button = make("button", label + " ");
      button.type = "button";
      button.dataset.outcome = key;
      button.setAttribute("aria-pressed", String(key === state.outcome));
      button.append(make("span", (key ? counts[key] || 0 : total).toLocaleString("en"), "count"));
      button.addEventListener("click", () => { state.outcome = key; update(); });
      return button;
    }));
    if (focused !== undefined && focused !== null) {
      [...place.children].find((button) => button.dataset.outcome === focused)?.focus();
    }
  }

  function drawRows() {
    const last = state.printing ? shown.length : Math.min(state.first + ROWS_A_PAGE, shown.length);
    const part = shown.slice(state.printing ? 0 : state.first, last);
    coming.disconnect();
    at("rows").replaceChildren(...part.map(drawRow));
    if (!part.length) at("rows").append(make("p", "No row is like that. Esc shows all again.", "none"));
    const all = theSet().rows.length;
    const some = shown.length === all ? "" : " of " + all.toLocaleString("en");
    at("shown").textContent = shown.length.toLocaleString("en") + some + (all === 1 ? " row" : " rows");
    at("pages").hidden = shown.length <= ROWS_A_PAGE;
    at("place").textContent = (state.first + 1).toLocaleString("en") + " to " +
      last.toLocaleString("en") + " of " + shown.length.toLocaleString("en");
    at("previous").disabled = state.first === 0;
    at("next").disabled = last >= shown.length;
    if (!state.printing) for (const article of at("rows").children) coming.observe(article);
  }

  // Measuring a row lays it out: only what is nearly seen is worth that.
  const coming = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      coming.unobserve(entry.target);
      letScroll(entry.target);
    }
  }, { rootMargin: "200px" });

  // A table that is wider than its place is scrolled with the arrow keys, once it has the focus.
  function letScroll(place) {
    for (const box of place.querySelectorAll(".scroll")) {
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
        box.setAttribute("role", "region");
        box.setAttribute("aria-label", "a wide table");
      }
    }
  }

  function drawRow(row) {
    const article = at("row-shape").content.firstElementChild.cloneNode(true);
    article.id = "row-" + row.key;
    article.classList.add(row.outcome);
    const link = article.querySelector(".number");
    link.href = "#row-" + row.key;
    link.textContent = "#" + row.number;
    link.setAttribute("aria-label", "Row " + row.number + ", a link to it");
    article.querySelector(".question").textContent = row.question;
    const tags = [row.apart || labels()[row.outcome], row.complexity, row.kind];
    const place = article.querySelector(".tags");
    tags.filter((tag) => tag).forEach((tag, index) => {
      place.append(make("span", tag, index ? "tag" : "tag outcome"), " ");
    });
    drawContext(article.querySelector(".context"), row);
    const gold = {
      spans: [["same", row.gold]], said: "", right: null, reply: null, result: row.gold_result,
    };
    const columns = article.querySelector(".columns");
    if (row.gold) columns.append(drawAnswer(isSql() ? "Gold" : "Reference", gold, "gold"));
    row.answers.forEach((answer, index) => {
      columns.append(drawAnswer(theSet().models[index], answer, ""));
    });
    return article;
  }

  function drawContext(details, row) {
    if (row.context === null) {
      details.remove();
      return;
    }
    details.querySelector("summary").textContent = isSql() ? "Schema" : "Input";
    details.querySelector("pre").textContent = theSet().contexts[row.context];
    details.open = !isSql() || state.printing;
  }

  function drawAnswer(name, answer, className) {
    const section = at("answer-shape").content.firstElementChild.cloneNode(true);
    if (className) section.classList.add(className);
    section.querySelector("h4").textContent = name;
    const said = section.querySelector(".said");
    if (answer.right !== null) said.classList.add(answer.right ? "good" : "bad");
    if (answer.said) said.textContent = answer.said;
    else said.remove();
    const text = section.querySelector(".text");
    for (const [kind, piece] of answer.spans) text.append(drawSpan(kind, piece));
    if (!text.textContent) text.append(make("i", "(empty)"));
    if (isSql()) {
      text.classList.add("code");
      text.dir = "ltr";
    }
    if (answer.result) section.querySelector(".result").append(drawTable(answer.result));
    else section.querySelector(".result").remove();
    const reply = section.querySelector(".reply");
    if (answer.reply) reply.querySelector("pre").textContent = answer.reply;
    else reply.remove();
    reply.open = state.printing;
    return section;
  }

  function drawSpan(kind, text) {
    const pieces = document.createDocumentFragment();
    // Words written from right to left would draw the signs of a query around them along.
    text.split(RIGHT_TO_LEFT).forEach((piece, index) => {
      pieces.append(index % 2 ? make("bdi", piece) : piece);
    });
    if (kind === "same") return pieces;
    const [tag, spoken] = MARKS[kind];
    const mark = make(tag);
    mark.append(make("span", spoken, "spoken"), pieces, make("span", "] ", "spoken"));
    return mark;
  }

  function drawTable(result) {
    const table = make("table", undefined, result.columns.length > WIDE ? "wide" : "");
    table.append(make("caption", result.size));
    const head = make("tr");
    for (const name of result.columns) {
      const cell = make("th", name);
      cell.scope = "col";
      if (name.length > LONG_VALUE) cell.className = "long";
      head.append(cell);
    }
    const numeric = result.columns.map((_, index) => result.rows.every((row) =>
      row[index] === null || (row[index] !== "" && !Number.isNaN(Number(row[index])))));
    const body = make("tbody");
    for (const row of result.rows) {
      const line = make("tr");
      row.forEach((value, index) => {
        const cell = value === null ? make("td", "NULL", "null") : make("td", value);
        if (numeric[index]) cell.classList.add("number");
        if (value !== null && value.length > LONG_VALUE) cell.classList.add("long");
        line.append(cell);
      });
      body.append(line);
    }
    const top = make("thead");
    top.append(head);
    table.append(top, body);
    return table;
  }

  // --- Choices ---------------------------------------------------------------------------------

  function fill(id, first, options) {
    const select = at(id);
    select.replaceChildren(new Option(first, ""), ...options);
    at(id + "-choice").hidden = !options.length;
  }

  function countsOf(values) {
    const counts = new Map();
    for (const value of values) if (value) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]);
  }

  function chooseSet(index) {
    const set = sets[state.set = index];
    const others = set.models.map((_, model) => model).filter((model) => model !== set.subject);
    state.against = others.length ? others[0] : null;
    state.outcome = "";
    at("set").value = String(index);
    at("search").value = "";
    at("against").replaceChildren(...others.map((model) => new Option(set.models[model], model)));
    at("against-choice").hidden = others.length < 2;
    for (const id of ["complexity", "kind"]) {
      const counts = countsOf(set.rows.map((row) => row[id]));
      fill(id, "any", counts.length < 2 ? [] : counts.map(([value, n]) =>
        new Option(value + " (" + n + ")", value)));
    }
    const groups = set.models.map((name, model) => {
      const group = make("optgroup");
      group.label = name;
      for (const [flaw, n] of countsOf(set.rows.map((row) => row.answers[model].flaw))) {
        group.append(new Option(flaw + " (" + n + ")", JSON.stringify([model, flaw])));
      }
      return group;
    });
    fill("error", "any or none", groups.filter((group) => group.children.length));
    at("legend").hidden = set.type !== "sql";
  }

  function showAll() {
    for (const id of ["search", "error", "complexity", "kind"]) at(id).value = "";
    state.outcome = "";
    update();
  }

  // --- Going from row to row -------------------------------------------------------------------

  function goTo(index) {
    if (index < 0 || index >= shown.length) return;
    const first = Math.floor(index / ROWS_A_PAGE) * ROWS_A_PAGE;
    if (first !== state.first) {
      state.first = first;
      drawRows();
    }
    state.current = index;
    const article = at("row-" + shown[index].key);
    for (const other of document.querySelectorAll(".row.current")) other.classList.remove("current");
    article.classList.add("current");
    article.focus({ preventScroll: true });
    article.scrollIntoView({ block: "start" });
    history.replaceState(null, "", "#row-" + shown[index].key);
  }

  function step(by) {
    if (state.current === null) goTo(state.first);
    else goTo(state.current + by);
  }

  function turnPage(by) {
    state.first = Math.max(0, Math.min(shown.length - 1, state.first + by * ROWS_A_PAGE));
    state.current = null;
    drawRows();
    at("rows").focus({ preventScroll: true });
    at("rows").scrollIntoView({ block: "start" });
  }

  function followLink() {
    if (!location.hash.startsWith("#row-")) return;
    const key = location.hash.slice(5);
    const home = sets.findIndex((set) => set.rows.some((row) => row.key === key));
    if (home < 0) return;
    const elsewhere = home !== state.set;
    if (elsewhere) chooseSet(home);
    if (elsewhere || !shown.some((row) => row.key === key)) showAll();
    goTo(shown.findIndex((row) => row.key === key));
  }

  function toggleContext() {
    const row = state.current === null ? shown[state.first] : shown[state.current];
    const details = row && at("row-" + row.key).querySelector(".context");
    if (details) details.open = !details.open;
  }

  const KEYS = {
    j: () => step(1),
    k: () => step(-1),
    s: toggleContext,
    "/": () => { at("search").focus(); at("search").select(); },
    Escape: showAll,
  };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const field = event.target.closest("input:not([type=checkbox]), select, textarea");
    if (field) {
      if (event.key !== "Escape" || field.type !== "search") return;
      event.preventDefault();
      if (!field.value) field.blur();
      field.value = "";
      update();
      return;
    }
    if (!at("keys-on").checked && event.key !== "Escape") return;
    if (!Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  }

  function print(on) {
    state.printing = on;
    drawRows();
    for (const details of document.querySelectorAll("details.more")) {
      if (on) details.dataset.open = details.open ? "yes" : "";
      details.open = on || details.dataset.open === "yes";
    }
  }

  // --- Beginning -------------------------------------------------------------------------------

  let waiting = 0;
  at("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 120);
  });
  for (const id of ["error", "complexity", "kind"]) at(id).addEventListener("change", update);
  at("against").addEventListener("change", () => { state.against = Number(at("against").value); update(); });
  at("set").append(...sets.map((set, index) => new Option(set.title, index)));
  at("set-choice").hidden = sets.length < 2;
  at("set").addEventListener("change", () => { chooseSet(Number(at("set").value)); update(); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("reset", (event) => { event.preventDefault(); showAll(); });
  at("previous").addEventListener("click", () => turnPage(-1));
  at("next").addEventListener("click", () => turnPage(1));
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", followLink);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  chooseSet(0);
  update();
  for (const section of document.querySelectorAll(".set")) letScroll(section);
  followLink();
  document.documentElement.dataset.ready = "yes";
})();
