import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";

const BUILT = new URL("../../static/console/", import.meta.url);
const SOURCE = new URL("../src/", import.meta.url);

const read = (folder: URL, name: string): string => readFileSync(new URL(name, folder), "utf8");
const page = read(BUILT, "index.html");
const assets = readdirSync(new URL("assets/", BUILT));
/** The files that a page loads: those of index.html, and those of its own. */
const loadedFor = (route: string): string[] => assets.filter((name) => page.includes(name) || name.startsWith(`${route}-page`));

describe("the built console", () => {
  it("has no inline script or style, which the policy forbids", () => {
    const document = page.replace(/<script [^>]*src="[^"]+"[^>]*><\/script>/g, "");
    expect(document).not.toMatch(/<script|<style|style=|\son\w+=|javascript:/i);
  });

  it("names no other host", () => {
    const files = [page, ...assets.map((name) => read(BUILT, `assets/${name}`))];
    const addresses = files.flatMap((text) => text.match(/\b(?:https?|wss?):\/\/[^\s"'`)]*/g) ?? []);
    expect(addresses.filter((address) => !address.startsWith("http://www.w3.org/"))).toEqual([]);
  });

  it.each(["login", "live"])("loads less than 60 KiB for the page %s", (route) => {
    const loaded = loadedFor(route);
    expect(loaded.length).toBeGreaterThan(2);
    // Chunks that some pages share count for each of them.
    const shared = assets.filter((name) => !name.includes("-page-") && !loaded.includes(name));
    const size = [...loaded, ...shared].reduce((sum, name) => sum + gzipSync(read(BUILT, `assets/${name}`)).length, 0);
    expect(size).toBeLessThan(60 * 1024);
  });

  it("has the licences of the packages in it", () => {
    const licences = read(BUILT, "licenses.txt");
    for (const name of ["preact", "openapi-fetch", "uqr"]) expect(licences).toContain(name);
  });
});

describe("the source", () => {
  const sources = readdirSync(SOURCE, { recursive: true, encoding: "utf8" }).filter((name) => /\.tsx?$/.test(name) && !name.endsWith(".d.ts"));

  it.each(sources)("%s never treats a text as HTML or code", (name) => {
    const forbidden = /innerHTML|outerHTML|dangerouslySet|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc/i;
    expect(read(SOURCE, name)).not.toMatch(forbidden);
  });
});
