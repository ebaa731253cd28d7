// One conversation with the server's model. Text is only ever put in as text, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
const STORED = "conversation";
let messages = JSON.parse(sessionStorage.getItem(STORED) || "[]");
let stopping = null; // of the answer that is under way

function show(role, text) {
  const article = document.createElement("article");
  article.className = role;
  article.textContent = text;
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
        article.textContent = text;
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
  at("model").textContent = response.ok ? (await response.json()).data[0].id : "needs an API key (Settings)";
}

redraw();
models();
