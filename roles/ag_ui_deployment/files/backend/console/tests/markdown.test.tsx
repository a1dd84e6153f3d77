// @vitest-environment happy-dom

import { render } from "preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { blocksOf, isWebAddress, Markdown } from "../src/agent/markdown";

const root = (): HTMLElement => document.getElementById("app")!;

function shown(text: string): HTMLElement {
  render(<Markdown text={text} />, root());
  return root().querySelector<HTMLElement>(".markdown")!;
}

beforeEach(() => {
  document.body.innerHTML = '<div id="app"></div>';
});

afterEach(() => {
  render(null, root());
  expect((window as { hacked?: unknown }).hacked).toBeUndefined();
});

describe("Markdown", () => {
  it("becomes elements", () => {
    const view = shown(
      "# Sharks\n\nThey **bite**, *sometimes*, ~~never~~ `often`.\\\nSee [them](https://example.org/a?b=1&c=2) or https://example.org/d.\n\n" +
        "3. three\n4. four\n   - nested\n\n> quoted\n\n---\n\n| name | size |\n| :-: | --: |\n| white | 6 m |\n\n```js\nlet a = '<b>';\n```\n",
    );
    expect(view.querySelector("h4")!.textContent).toBe("Sharks");
    expect([...view.querySelectorAll("p > :is(strong, em, s, code)")].map(({ tagName, textContent }) => `${tagName} ${textContent}`)).toEqual([
      "STRONG bite",
      "EM sometimes",
      "S never",
      "CODE often",
    ]);
    expect([...view.querySelectorAll("a")].map((link) => link.getAttribute("href"))).toEqual(["https://example.org/a?b=1&c=2", "https://example.org/d"]);
    expect(view.querySelector("ol")!.getAttribute("start")).toBe("3");
    expect(view.querySelector("ol > li:last-child > ul > li")!.textContent).toBe("nested");
    expect(view.querySelector("blockquote > p")!.textContent).toBe("quoted");
    expect(view.querySelector("hr")).not.toBeNull();
    expect([...view.querySelectorAll("th, td")].map(({ className, textContent }) => `${className} ${textContent}`)).toEqual([
      "align-center name",
      "align-right size",
      "align-center white",
      "align-right 6 m",
    ]);
    expect(view.querySelector("pre > code")!.textContent).toBe("let a = '<b>';");
    expect(view.querySelector("[style]")).toBeNull();
  });

  it("opens links apart from the page, which they learn nothing of", () => {
    const link = shown("[a](https://example.org/)").querySelector("a")!;
    expect(link.rel.split(" ")).toEqual(expect.arrayContaining(["noopener", "noreferrer"]));
    expect(link.target).toBe("_blank");
  });

  it("shows HTML as text", () => {
    const html = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script><b onclick="x">b</b>';
    const view = shown(`${html}\n\n<div onmouseover="window.hacked=1">\n\n> <iframe srcdoc="x"></iframe>\n\n<!-- comment -->`);
    expect([...view.querySelectorAll("*")].map(({ localName }) => localName)).toEqual(["p", "p", "blockquote", "p", "p"]);
    expect(view.textContent).toContain(html);
    expect(view.textContent).toContain("<!-- comment -->");
  });

  it.each([
    "javascript:window.hacked=1",
    "JaVaScRiPt:window.hacked=1",
    "&#106;avascript:window.hacked=1",
    "java&Tab;script:window.hacked=1",
    "\u0001javascript:window.hacked=1",
    "vbscript:x",
    "data:text/html;base64,PHNjcmlwdD4=",
    "file:///etc/passwd",
    "blob:0c9d5a61",
    "//example.org/",
    "/console/mine",
    "#main",
    "mailto:a@example.org",
    "http:",
    "https://",
  ])("makes no link to %j", (address) => {
    for (const text of [`[a](${address})`, `[a](<${address}>)`, `<${address}>`, `![a](${address})`, `[a][r]\n\n[r]: ${address}\n`, `[a]\n\n[a]: <${address}>`]) {
      expect(shown(text).querySelector("a, img"), text).toBeNull();
    }
  });

  it("shows where a link would lead that it does not make", () => {
    const text = "[a](javascript:window.hacked=1) ![b](data:image/png;base64,x)";
    expect(shown(text).textContent).toBe(text);
  });

  it("loads no image, but links to it", () => {
    const view = shown('![a **shark**](https://example.org/track.png "title") ![](http://example.org/x)');
    expect(view.querySelector("img")).toBeNull();
    expect([...view.querySelectorAll("a")].map((link) => `${link.textContent} ${link.getAttribute("href")}`)).toEqual([
      "Image: a **shark** https://example.org/track.png",
      "Image: without a description http://example.org/x",
    ]);
  });

  it.each([
    ["quotes", ">".repeat(5_000) + " deep"],
    ["lists", Array.from({ length: 300 }, (_, depth) => `${" ".repeat(depth * 2)}- deep`).join("\n")],
    ["lists in one line", "- ".repeat(5_000) + "deep"],
    ["quotes in lists", "> - ".repeat(2_000) + "deep"],
  ])("shows text that is nested too deeply as it is: %s", (_, text) => {
    const view = shown(`before\n\n${text}\n\nafter`);
    expect(view.textContent).toContain("deep");
    expect(view.textContent).toContain("before");
    expect(view.textContent).toContain("after");
    expect(view.querySelectorAll("*").length).toBeLessThan(10);
  });

  it.each([
    ["brackets", "[".repeat(20_000)],
    ["links", "[a](".repeat(5_000)],
    ["images", "![[".repeat(5_000)],
    ["emphasis", "*a **b _".repeat(2_500)],
    ["underscores", "a_".repeat(10_000)],
    ["addresses", "http://".repeat(3_000)],
    ["fences", "```\n".repeat(5_000)],
    ["cells", `${"|a".repeat(3_000)}\n${"|-".repeat(3_000)}\n${"|b".repeat(3_000)}`],
  ])("does not fail on many %s", (_, text) => {
    expect(shown(text).querySelector("img, script")).toBeNull();
  });

  it("shows a text without end as it is", () => {
    const text = "**a** ".repeat(50_000);
    expect(shown(text).querySelector("p.answer")!.textContent).toBe(text);
  });

  it("keeps what is not changed while a text grows", () => {
    const first = shown("one\n\n- two").querySelector("p");
    const view = shown("one\n\n- two **three**\n\nfour");
    expect(view.querySelector("p")).toBe(first);
    expect(view.querySelector("li > strong")!.textContent).toBe("three");
    const before = blocksOf("one\n\n- two", []);
    const after = blocksOf("one\n\n- two **three**", before);
    expect(after[0]).toBe(before[0]);
    expect(after[1]).not.toBe(before[1]);
  });

  it("knows a reference that follows later", () => {
    expect(shown("see [a]").querySelector("a")).toBeNull();
    expect(shown("see [a]\n\n[a]: https://example.org/").querySelector("a")!.textContent).toBe("a");
  });

  it("copies the text of a code block", async () => {
    const writeText = vi.fn(() => Promise.resolve());
    vi.stubGlobal("navigator", { clipboard: { writeText } });
    shown("```\nls -l\n```").querySelector("button")!.click();
    expect(writeText).toHaveBeenCalledWith("ls -l");
    vi.unstubAllGlobals();
  });
});

it.each([
  ["https://example.org", true],
  ["HTTP://example.org/a", true],
  ["https:example.org", false],
  [" https://example.org", false],
  ["ftp://example.org", false],
])("knows whether %j is an address of the web", (address, expected) => {
  expect(isWebAddress(address)).toBe(expected);
});
