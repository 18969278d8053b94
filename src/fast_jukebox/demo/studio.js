// The studio's script: sound while it is made, one player at a time, clicks on waveforms, words as they are sung.
(() => {
  const SCHEDULED = 0.15; // seconds between the arrival of the first samples and their sound
  let context = null;
  let current = null;

  // A browser lets a page sound only after somebody has pressed something on it.
  function awaken() {
    context = context || new (window.AudioContext || window.webkitAudioContext)();
    if (context.state === "suspended" && !(current && current.paused)) context.resume();
    return context;
  }
  document.addEventListener("click", awaken, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") awaken();
  }, true);

  class Live {
    constructor(box) {
      this.box = box;
      this.time = box.querySelector(".fj-live-time");
      this.rate = Number(box.dataset.rate);
      this.played = 0; // seconds scheduled
      this.next = 0; // when the next samples sound, on the context's clock
      this.sources = new Set();
      this.abort = new AbortController();
      this.paused = false;
      this.ended = false;
      this.begun = performance.now();
      this.firstSound = null;
      box.querySelector("[data-live=pause]").addEventListener("click", () => this.pause());
      this.clock = setInterval(() => this.show(), 200);
    }

    async run() {
      const context = awaken();
      try {
        const answer = await fetch(this.box.dataset.stream, { signal: this.abort.signal });
        if (!answer.ok) return;
        const reader = answer.body.getReader();
        let rest = new Uint8Array(0);
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          const bytes = new Uint8Array(rest.length + value.length);
          bytes.set(rest);
          bytes.set(value, rest.length);
          const even = bytes.length - (bytes.length % 2);
          rest = bytes.slice(even);
          if (even) this.schedule(context, new DataView(bytes.buffer, 0, even));
        }
      } catch (error) {
        if (error.name !== "AbortError") console.warn("the stream ended:", error.message);
      } finally {
        this.ended = true;
      }
    }

    schedule(context, view) {
      const count = view.byteLength / 2;
      // Browsers resample rates from 8000 Hz; of slower sound each sample is held.
      const held = Math.ceil(8000 / this.rate);
      const buffer = context.createBuffer(1, count * held, this.rate * held);
      const samples = buffer.getChannelData(0);
      for (let index = 0; index < count * held; index++) {
        samples[index] = view.getInt16(2 * Math.floor(index / held), true) / 32768;
      }
      const source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(context.destination);
      const start = Math.max(this.next, context.currentTime + SCHEDULED);
      source.start(start);
      this.next = start + buffer.duration;
      this.played += buffer.duration;
      this.sources.add(source);
      source.onended = () => this.sources.delete(source);
      if (this.firstSound === null) this.firstSound = performance.now() - this.begun + 1000 * SCHEDULED;
    }

    show() {
      if (!this.time || !context) return;
      const ahead = Math.max(this.next - context.currentTime, 0);
      if (this.firstSound !== null) {
        const waits = ahead === 0 && !this.ended ? " · waiting for more" : "";
        this.time.textContent = `${(this.played - ahead).toFixed(0)} s heard, ${ahead.toFixed(0)} s ahead${waits}`;
      }
      if (this.ended && ahead === 0) {
        clearInterval(this.clock);
        this.box.hidden = true;
      }
    }

    pause() {
      this.paused = !this.paused;
      const button = this.box.querySelector("[data-live=pause]");
      button.setAttribute("aria-pressed", String(this.paused));
      button.textContent = this.paused ? "Go on" : "Pause";
      if (this.paused) context.suspend();
      else context.resume();
    }

    close() {
      this.abort.abort();
      clearInterval(this.clock);
      for (const source of this.sources) source.stop();
      this.sources.clear();
      this.next = 0;
      this.ended = true;
      this.box.hidden = true;
      if (context && context.state === "suspended") context.resume();
    }
  }

  function silence() {
    if (current) current.close();
    current = null;
    for (const player of document.querySelectorAll("audio")) player.pause();
  }

  // Plays what an element says is being made; called when its content changes.
  function listen(element) {
    const box = element.querySelector(".fj-live[data-stream]");
    if (!box) {
      if (!element.textContent.trim() && current) silence();
      return;
    }
    silence();
    current = new Live(box);
    current.run();
  }

  // One sound at a time.
  document.addEventListener("play", (event) => {
    if (current) current.close();
    current = null;
    for (const player of document.querySelectorAll("audio")) if (player !== event.target) player.pause();
  }, true);

  // Words that are sung light up while a player with data-words plays.
  document.addEventListener("timeupdate", (event) => {
    const words = document.getElementById(event.target.dataset ? event.target.dataset.words : "");
    if (!words) return;
    const now = event.target.currentTime;
    for (const word of words.querySelectorAll("[data-start]")) {
      const sung = Number(word.dataset.start) <= now && now < Number(word.dataset.end);
      word.classList.toggle("fj-sung", sung);
    }
  }, true);

  function theme(element) {
    element.querySelector("[data-theme]").addEventListener("click", () => document.body.classList.toggle("dark"));
  }

  // Sends the data of whatever was pressed in an element to the page's handler; a waveform sends seconds.
  function actions(element, trigger) {
    element.addEventListener("click", (event) => {
      const wave = event.target.closest("[data-pick]");
      if (wave) {
        const frame = wave.getBoundingClientRect();
        const share = Math.min(Math.max((event.clientX - frame.left) / frame.width, 0), 1);
        trigger("click", { action: wave.dataset.pick, seconds: share * Number(wave.dataset.duration) });
        return;
      }
      const pressed = event.target.closest("[data-action]");
      if (pressed) trigger("click", { action: pressed.dataset.action, value: pressed.dataset.value || "" });
    });
  }

  window.fastJukebox = { actions, listen, silence, theme, get live() { return current; } };
})();
