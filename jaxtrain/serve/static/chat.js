// One conversation with the server's model. Text is only ever put in as text, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
const STORED = "conversation";
let messages = JSON.parse(sessionStorage.getItem(STORED) || "[]");
let stopping = null; // of the answer that is under way

function element(name, content = "", className = "") {
  const made = document.createElement(name);
  made.className = className;
  made.append(...(Array.isArray(content) ? content : [content]));
  return made;
}

function copying(text, what) {
  const button = element("button", "", "copy"); // its word is in the style: it is no part of the answer's text
  button.type = "button";
  button.ariaLabel = `Copy ${what}`;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // only pages of this machine or of https have a clipboard
      const area = element("textarea", text);
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 2000);
  });
  return button;
}

// Code, bold and italics within a line.
function inline(text) {
  const parts = text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*|\*[^*\s][^*\n]*\*)/);
  return parts.map((part, n) => {
    if (n % 2 === 0) return part; // between the marks
    if (part[0] === "`") return element("code", part.slice(1, -1));
    return part[1] === "*" ? element("strong", part.slice(2, -2)) : element("em", part.slice(1, -1));
  });
}

// The Markdown that models write, as elements: fences, headings, lists, paragraphs.
function markdown(text) {
  const found = [], lines = text.split("\n");
  const item = /^\s*([-*+]|\d+[.)])\s+(.*)$/;
  for (let n = 0; n < lines.length; n += 1) {
    const fence = lines[n].match(/^\s*```/), heading = lines[n].match(/^#{1,6}\s+(.*)$/), listed = lines[n].match(item);
    if (fence) {
      const code = [];
      while (++n < lines.length && !/^\s*```\s*$/.test(lines[n])) code.push(lines[n]);
      const block = code.join("\n");
      found.push(element("div", [element("pre", [element("code", block)]), copying(block, "this code")], "code"));
    } else if (heading) {
      found.push(element("h3", inline(heading[1])));
    } else if (listed) {
      const list = element(/\d/.test(listed[1]) ? "ol" : "ul");
      if (/\d/.test(listed[1])) list.start = parseInt(listed[1], 10);
      if (found.at(-1)?.nodeName === list.nodeName && lines[n - 1]?.match(item)) found.at(-1).append(element("li", inline(listed[2])));
      else { list.append(element("li", inline(listed[2]))); found.push(list); }
    } else if (lines[n].trim()) {
      const isMore = found.at(-1)?.nodeName === "P" && lines[n - 1]?.trim();
      if (isMore) found.at(-1).append("\n", ...inline(lines[n]));
      else found.push(element("p", inline(lines[n])));
    }
  }
  return found;
}

function fill(article, role, text, isOver) {
  article.replaceChildren(...(role === "assistant" ? markdown(text) : [text]));
  if (role === "assistant" && isOver && text) article.append(copying(text, "the answer"));
}

function show(role, text) {
  const article = element("article", "", role);
  fill(article, role, text, true);
  at("log").append(article);
  article.scrollIntoView({ block: "end" });
  return article;
}

function keep() {
  sessionStorage.setItem(STORED, JSON.stringify(messages));
}

function redraw() {
  at("log").replaceChildren();
  for (const message of messages) show(message.role, message.content);
  refresh();
}

function refresh() {
  at("stop").hidden = !stopping;
  at("send").hidden = Boolean(stopping);
  at("again").hidden = Boolean(stopping) || messages.at(-1)?.role !== "assistant";
}

function headers() {
  const key = at("key").value;
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

async function answer() {
  const conversation = messages;
  const system = at("system").value.trim();
  const body = {
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
    temperature: Number(at("temperature").value),
    top_p: Number(at("top_p").value),
    ...(at("max_tokens").value && { max_tokens: Number(at("max_tokens").value) }),
    stream: true,
    stream_options: { include_usage: true },
  };
  stopping = new AbortController();
  refresh();
  const article = show("assistant", "");
  let text = "", tokens = 0, first = 0, reason = "";
  const speed = () => {
    const seconds = (performance.now() - first) / 1000;
    at("status").textContent = tokens > 1 ? `${tokens} tokens, ${((tokens - 1) / seconds).toFixed(1)} tokens/s` : "…";
  };
  at("status").textContent = "…";
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(body), signal: stopping.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      const choice = event.choices[0];
      const piece = choice?.delta.content;
      if (piece) {
        first ||= performance.now();
        text += piece;
        tokens += 1;
        fill(article, "assistant", text, false);
        article.scrollIntoView({ block: "end" });
      }
      reason = choice?.finish_reason || reason;
      tokens = event.usage?.completion_tokens ?? tokens;
      speed();
    }
    if (reason === "length") at("status").textContent += ", cut short";
  } catch (error) {
    if (error.name !== "AbortError") {
      article.remove();
      show("error", error.message);
      stopping = null;
      refresh();
      return;
    }
    at("status").textContent += ", stopped";
  }
  fill(article, "assistant", text, true);
  stopping = null;
  if (messages === conversation) { // else another one was begun meanwhile
    messages.push({ role: "assistant", content: text });
    keep();
  }
  refresh();
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("input").value.trim();
  if (!text || stopping) return;
  if (messages.at(-1)?.role === "user") messages.pop(); // the one before was not answered
  messages.push({ role: "user", content: text });
  at("input").value = "";
  keep();
  redraw();
  answer();
});
at("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("form").requestSubmit();
  }
});
at("stop").addEventListener("click", () => stopping?.abort());
at("again").addEventListener("click", () => {
  messages.pop();
  keep();
  redraw();
  answer();
});
at("clear").addEventListener("click", () => {
  stopping?.abort();
  messages = [];
  keep();
  redraw();
  at("status").textContent = "";
});
at("key").addEventListener("change", models);

async function models() {
  const response = await fetch("/v1/models", { headers: headers() });
  const about = response.ok ? (await response.json()).data[0] : null;
  at("model").textContent = about ? about.id : "needs an API key (Settings)";
  const size = (count) => Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(count);
  at("card").textContent = about
    ? `A language model of ${size(about.parameters)} parameters in ${about.dtype}, which reads ${about.max_length} tokens at a time. What it says may be wrong.`
    : "";
}

redraw();
models();
