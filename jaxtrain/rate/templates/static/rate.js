// The keyboard of the rating page. The selects of the form hold the places; all else is drawn from them, and a
// reload finds them in sessionStorage, with the time already spent.
"use strict";
const form = document.getElementById("judgement");
const undo = document.getElementById("undo");

if (form) {
  const answers = [...form.querySelectorAll(".answer")];
  const selects = answers.map((answer) => answer.querySelector("select"));
  const tie = document.getElementById("tie");
  const clock = document.getElementById("clock");
  const key = `task ${form.dataset.task}`;
  const draft = JSON.parse(sessionStorage.getItem(key) || "null");
  let groups = []; // answers from best to worst, ties together
  let tied = false; // the next answer ties with the last one
  let spent = draft ? draft.spent : 0; // milliseconds before this load of the page
  const begun = performance.now();
  tie.hidden = false;

  const time = () => Math.round(spent + performance.now() - begun);
  const save = () => sessionStorage.setItem(key, JSON.stringify({ groups, spent: time() }));

  function read() { // places set by hand, or by the server
    const places = [...new Set(selects.map((s) => s.value).filter(Boolean))].sort((a, b) => a - b);
    groups = places.map((place) => answers.map((_, n) => n).filter((n) => selects[n].value === place));
  }

  function draw() {
    selects.forEach((select) => { select.value = ""; });
    groups.forEach((group, place) => group.forEach((n) => { selects[n].value = String(place + 1); }));
    const left = answers.map((_, n) => n).filter((n) => selects[n].value === "");
    if (left.length === 1 && groups.length && !tied) selects[left[0]].value = String(groups.length + 1); // what is left is last
    answers.forEach((answer, n) => answer.classList.toggle("ranked", selects[n].value !== ""));
    tie.setAttribute("aria-pressed", String(tied));
    save();
  }

  function take(n) {
    groups = groups.map((group) => group.filter((m) => m !== n)).filter((group) => group.length);
    if (tied && groups.length) groups[groups.length - 1].push(n);
    else groups.push([n]);
    tied = false;
    draw();
  }

  function back() {
    if (tied) tied = false;
    else if (groups.length && groups[groups.length - 1].length > 1) groups[groups.length - 1].pop();
    else groups.pop();
    draw();
  }

  const press = (verdict) => form.querySelector(`button[value=${verdict}]`).click();

  answers.forEach((answer, n) => answer.addEventListener("click", (event) => {
    if (!event.target.closest("select, a") && !String(getSelection())) take(n);
  }));
  selects.forEach((select) => select.addEventListener("change", () => { read(); tied = false; draw(); }));
  tie.addEventListener("click", () => { tied = !tied; draw(); });
  form.addEventListener("submit", () => {
    form.elements.milliseconds.value = String(time());
    sessionStorage.removeItem(key);
  });
  window.addEventListener("pagehide", () => { if (sessionStorage.getItem(key)) save(); });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
    const n = Number(event.key) - 1;
    if (n >= 0 && n < answers.length) take(n);
    else if (event.key === "t") { tied = !tied; draw(); }
    else if (event.key === "Backspace") back();
    else if (event.key === "Enter" && !event.target.closest("button")) press("ranks");
    else if (event.key === "b") press("all_bad");
    else if (event.key === "s") press("skip");
    else return;
    event.preventDefault();
  });

  if (draft) groups = draft.groups;
  else read();
  draw();
  const tick = () => { clock.textContent = `, ${Math.floor(time() / 1000)} s on this one`; };
  tick();
  setInterval(tick, 1000);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey;
  if (event.key === "u" && !typing && undo && !undo.disabled) undo.click();
});
