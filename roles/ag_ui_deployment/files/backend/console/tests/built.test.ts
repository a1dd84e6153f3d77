import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";

const BUILT = new URL("../../static/console/", import.meta.url);
const SOURCE = new URL("../src/", import.meta.url);

const read = (folder: URL, name: string): string => readFileSync(new URL(name, folder), "utf8");
const page = read(BUILT, "index.html");
const assets = readdirSync(new URL("assets/", BUILT));

/** The files that a page loads: those of index.html, those of its own, and those that these import at once. */
function loadedFor(route: string): string[] {
  const loaded = assets.filter((name) => page.includes(name) || name.startsWith(`${route}-page`));
  // What an import adds is visited too.
  for (const name of loaded) {
    const imported = read(BUILT, `assets/${name}`).matchAll(/\b(?:from|import)\s*["']\.\/([^"']+)["']/g);
    loaded.push(...[...imported].map(([, other]) => other!).filter((other) => !loaded.includes(other)));
  }
  return loaded;
}

describe("the built console", () => {
  it("has no inline script or style, which the policy forbids", () => {
    const document = page.replace(/<script [^>]*src="[^"]+"[^>]*><\/script>/g, "");
    expect(document).not.toMatch(/<script|<style|style=|\son\w+=|javascript:/i);
  });

  it("names no other host", () => {
    const files = [page, ...assets.map((name) => read(BUILT, `assets/${name}`))];
    const addresses = files.flatMap((text) => text.match(/\b(?:https?|wss?):\/\/[\w[][^\s"'`)]*/g) ?? []);
    expect(addresses.filter((address) => !address.startsWith("http://www.w3.org/"))).toEqual([]);
  });

  it.each([
    ["login", 60],
    ["live", 60],
    ["start", 60],
    ["agent", 100],
  ])("loads for the page %s less than %i KiB", (route, most) => {
    const loaded = loadedFor(route);
    expect(loaded.length).toBeGreaterThan(2);
    const size = loaded.reduce((sum, name) => sum + gzipSync(read(BUILT, `assets/${name}`)).length, 0);
    expect(size).toBeLessThan(most * 1024);
  });

  it("has the licences of the packages in it", () => {
    const licences = read(BUILT, "licenses.txt");
    for (const name of ["preact", "openapi-fetch", "uqr", "markdown-it", "eventsource-parser", "tus-js-client"]) expect(licences).toContain(name);
  });
});

describe("the source", () => {
  const sources = readdirSync(SOURCE, { recursive: true, encoding: "utf8" }).filter((name) => /\.tsx?$/.test(name) && !name.endsWith(".d.ts"));

  it.each(sources)("%s never treats a text as HTML or code", (name) => {
    const forbidden = /innerHTML|outerHTML|dangerouslySet|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc/i;
    expect(read(SOURCE, name)).not.toMatch(forbidden);
  });
});
