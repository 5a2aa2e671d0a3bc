// What the same costs in Bun: `bun commands.js WAY COUNT PROGRAM`, prints operations a second.
//
// WAY: `spawn` awaits a captured process, one after another; `shell` runs the builtin `echo hi` of Bun's own shell; `on`,
// `count` and `emit` are its handlers of signals.

import { $ } from "bun";

const [way, count, program] = [process.argv[2], Number(process.argv[3]), process.argv[4]];

const ways = {
  async spawn() {
    for (let i = 0; i < count; i++) {
      const child = Bun.spawn([program], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
      const [text] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
      if (text !== "hi\n") throw new Error(text);
    }
  },
  async shell() {
    for (let i = 0; i < count; i++) {
      const text = await $`echo hi`.text();
      if (text !== "hi\n") throw new Error(text);
    }
  },
  async on() {
    for (let i = 0; i < count; i++) {
      const handler = () => i;
      process.on("SIGUSR1", handler);
      process.off("SIGUSR1", handler);
    }
  },
  async count() {
    process.on("SIGUSR1", () => {});
    let sum = 0;
    for (let i = 0; i < count; i++) sum += process.listenerCount("SIGUSR1");
    if (sum !== count) throw new Error(String(sum));
  },
  async emit() {
    let sum = 0;
    process.on("SIGUSR1", () => sum++);
    for (let i = 0; i < count; i++) process.emit("SIGUSR1");
    if (sum !== count) throw new Error(String(sum));
  },
};

const begin = Bun.nanoseconds();
await ways[way]();
console.log(((count * 1e9) / (Bun.nanoseconds() - begin)).toFixed(1));
process.exit(0);
