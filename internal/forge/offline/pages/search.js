"use strict";
{
  const form = document.getElementById("form"), results = document.getElementById("results"), status = document.getElementById("status");
  const chunks = Number(form.dataset.chunks), most = 300;
  let search = 0;
  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
  function load(chunk) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      let found = [];
      window.backstay = (list) => { found = list; };
      script.src = "search/" + String(chunk).padStart(5, "0") + ".js";
      script.onload = () => { script.remove(); resolve(found); };
      script.onerror = () => { script.remove(); reject(new Error(script.src + " cannot be read")); };
      document.head.append(script);
    });
  }
  function fits(entry, wanted) {
    if (wanted.repository && entry.r !== wanted.repository || wanted.sort && entry.k !== wanted.sort) return false;
    if (wanted.state && entry.s !== wanted.state || wanted.author && entry.a.toLowerCase() !== wanted.author.toLowerCase()) return false;
    if (wanted.milestone && entry.m.toLowerCase() !== wanted.milestone.toLowerCase()) return false;
    const labels = entry.l.map((label) => label.toLowerCase());
    if (wanted.label && !labels.includes(wanted.label.toLowerCase())) return false;
    const text = (entry.t + " " + entry.w + " " + entry.a + " #" + entry.n).toLowerCase();
    return words(wanted.words).every((word) => text.includes(word) || labels.some((label) => label.includes(word)));
  }
  function cell(row, text, name) {
    const td = row.insertCell();
    const inner = document.createElement(name || "bdi");
    inner.textContent = text;
    td.append(inner);
    return inner;
  }
  function show(entry) {
    const row = results.insertRow();
    cell(row, entry.s).className = "state " + entry.s;
    const title = cell(row, entry.t || "(no title)", "a");
    title.href = entry.p;
    title.dir = "auto";
    cell(row, entry.r + (entry.n ? " " + entry.k + " " + entry.n : ""));
    cell(row, entry.l.join(", "));
    cell(row, entry.a);
    cell(row, entry.d);
  }
  async function run() {
    const mine = ++search, wanted = Object.fromEntries(new FormData(form));
    results.textContent = "";
    let found = 0;
    for (let chunk = chunks; chunk > 0; chunk--) {
      status.textContent = "searching, " + found + " found";
      let list;
      try { list = await load(chunk); } catch (error) { status.textContent = error.message; return; }
      if (mine !== search) return;
      for (const entry of list.reverse()) {
        if (fits(entry, wanted) && ++found <= most) show(entry);
      }
    }
    status.textContent = found + " found" + (found > most ? ", of which " + most + " are shown" : "");
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = new URLSearchParams(Object.entries(Object.fromEntries(new FormData(form))).filter((pair) => pair[1])).toString();
    run();
  });
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of asked) if (form.elements[name]) form.elements[name].value = value;
  run();
}
