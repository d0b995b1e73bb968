// Builds vendor.js into one file, and writes the licences of what is in it beside it.

import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";

const OUT = "../static/documents/vendor";
const PERMISSIVE = new Set(["MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0"]);

const { metafile } = await build({
  entryPoints: ["vendor.js"],
  outfile: `${OUT}/editor.js`,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none", // they are in LICENSES.txt, all of them
  metafile: true,
});

// Of each file: the innermost package that it is in.
const packages = new Set(
  Object.keys(metafile.inputs)
    .map((path) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
    .filter(Boolean),
);
const parts = [...packages].sort().map((path) => {
  const { name, version, license } = JSON.parse(readFileSync(`${path}/package.json`, "utf8"));
  if (!PERMISSIVE.has(license)) throw new Error(`${name} is under ${license}`);
  const file = readdirSync(path).find((each) => /^licen[cs]e/i.test(each));
  if (!file) throw new Error(`${name} has no licence beside it`);
  return `${name} ${version} (${license})\n\n${readFileSync(`${path}/${file}`, "utf8").trim()}\n`;
});
writeFileSync(`${OUT}/LICENSES.txt`, parts.join(`\n${"-".repeat(78)}\n\n`));
console.log(parts.map((part) => part.split("\n")[0]).join("\n"));
