import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "/console/",
  build: {
    outDir: "../static/console",
    emptyOutDir: true,
    target: "es2022",
    // The policy allows images as data: only, and every other file from this host.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The licences of the bundled packages demand that they go with every copy.
    license: { fileName: "licenses.txt" },
    reportCompressedSize: false,
  },
  server: {
    // `npm run dev` beside a backend on this machine, whose address AG_UI_URL overrides.
    proxy: Object.fromEntries(
      ["/auth", "/api", "/admin", "/agent", "/events", "/health"].map((path) => [
        path,
        { target: process.env["AG_UI_URL"] ?? "http://127.0.0.1:8002", secure: false },
      ]),
    ),
  },
  test: {
    include: ["tests/**/*.test.{ts,tsx}"],
    // Its module for browsers, as in the built console.
    alias: { "tus-js-client": "tus-js-client/lib.es5/browser/index.js" },
  },
});
