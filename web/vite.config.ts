// Builds the page into the Python package, from which `hemalum review` serves it.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

const PACKAGE = /^(.*\/node_modules\/((?:@[^/]+\/)?[^/]+))\//;

/** Writes THIRD_PARTY.txt: name, version and license text of each package of which code is in the page. */
function thirdParty() {
  return {
    name: "third-party",
    generateBundle(
      this: { emitFile(file: { type: "asset"; fileName: string; source: string }): string },
      _: unknown,
      bundle: Record<string, { type: string; modules?: Record<string, unknown> }>,
    ) {
      const folders = new Map<string, string>();
      for (const chunk of Object.values(bundle)) {
        for (const id of Object.keys(chunk.modules ?? {})) {
          const found = PACKAGE.exec(id.replaceAll("\\", "/").replace(/^\0/, ""));
          if (found?.[1] && found[2]) folders.set(found[2], found[1]);
        }
      }
      const parts = [...folders].sort().map(([name, folder]) => {
        const facts = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, string>;
        const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
        if (!file || !existsSync(join(folder, file))) throw new Error(`${name}: has no license file`);
        const text = readFileSync(join(folder, file), "utf8").trim();
        return `${name} ${facts.version} (${facts.license})\n\n${text}\n`;
      });
      const source = `The page holds code of these packages.\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`;
      this.emitFile({ type: "asset", fileName: "THIRD_PARTY.txt", source });
    },
  };
}

export default defineConfig({
  plugins: [thirdParty()],
  worker: { format: "es" },
  build: {
    outDir: "../src/hemalum/review/static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: false,
    chunkSizeWarningLimit: 1000,
  },
  test: { include: ["test/**/*.test.ts"] },
});
