/**
 * Shows Markdown from a model as elements of the page. The text may come from anywhere: from web sites,
 * documents and tools. It is parsed into tokens, and only known tokens become elements. HTML stays text,
 * links lead to web addresses only, and images become links.
 */

import MarkdownIt, { type Env, type Token } from "markdown-it";
import { type ComponentChild, createElement, Fragment } from "preact";
import { useMemo, useRef } from "preact/hooks";
import { CopyButton } from "../ui/parts";

/** Deeper nesting is shown as the text that it is: the parser would leave out what is inside. */
const NESTING_MAX = 30;
/** Longer texts are shown as they are: they are parsed again with each piece that arrives. */
const LENGTH_MAX = 200_000;

const parser = new MarkdownIt({ html: false, linkify: true, maxNesting: NESTING_MAX });
// Only what is written as an address becomes a link, and not "example.org".
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
parser.validateLink = isWebAddress;

export function isWebAddress(address: string): boolean {
  return /^https?:\/\//i.test(address) && URL.canParse(address);
}

/** A paragraph, list, table or other part at the top level of a text. */
interface Block {
  readonly source: string;
  readonly node: ComponentChild;
}

/** While a text grows, only its last block is rendered again. */
export function Markdown({ text }: { text: string }) {
  const before = useRef<readonly Block[]>([]);
  const blocks = useMemo(() => blocksOf(text, before.current), [text]);
  before.current = blocks;
  return <div class="markdown">{blocks.map(({ node }) => node)}</div>;
}

/** @param known The blocks of the text before it grew: a block that has the same source stays as it is. */
export function blocksOf(text: string, known: readonly Block[]): Block[] {
  if (text.length > LENGTH_MAX) return [{ source: text, node: <p class="answer">{text}</p> }];
  const env: Env = {};
  const tokens = parser.parse(text, env);
  const lines = text.split(/\r\n?|\n/);
  // A reference that follows can change what precedes it.
  const references = JSON.stringify(env.references ?? {});
  return topLevel(tokens).map((group, index) => {
    const [start, end] = group[0]!.map ?? [0, 0];
    const lineText = lines.slice(start, end).join("\n");
    const source = `${references}${lineText}`;
    const same = known[index];
    if (same?.source === source) return same;
    const isTooDeep = group.some(({ level }) => level >= NESTING_MAX - 1);
    const content = isTooDeep ? <p class="answer">{lineText}</p> : nodesOf(group);
    return { source, node: <Fragment key={index}>{content}</Fragment> };
  });
}

function topLevel(tokens: readonly Token[]): Token[][] {
  const groups: Token[][] = [];
  for (const token of tokens) {
    if (token.level === 0 && token.nesting !== -1) groups.push([]);
    groups.at(-1)?.push(token);
  }
  return groups;
}

function nodesOf(tokens: readonly Token[]): ComponentChild[] {
  const root: ComponentChild[] = [];
  const open: { token: Token; children: ComponentChild[] }[] = [];
  for (const token of tokens) {
    if (token.nesting === 1) {
      open.push({ token, children: [] });
      continue;
    }
    const closed = token.nesting === -1 ? open.pop() : undefined;
    const node = closed ? element(closed.token, closed.children) : leaf(token);
    (open.at(-1)?.children ?? root).push(node);
  }
  return root;
}

/** Elements without attributes, by the name of the token that opens them. */
const ELEMENTS: Readonly<Record<string, string>> = {
  paragraph_open: "p",
  bullet_list_open: "ul",
  list_item_open: "li",
  blockquote_open: "blockquote",
  thead_open: "thead",
  tbody_open: "tbody",
  tr_open: "tr",
  em_open: "em",
  strong_open: "strong",
  s_open: "s",
};

function element(token: Token, children: ComponentChild[]): ComponentChild {
  // The paragraphs of a tight list.
  if (token.hidden) return createElement(Fragment, null, children);
  switch (token.type) {
    case "heading_open":
      // Below the headings of the page.
      return createElement(`h${Math.min(6, Number(token.tag.slice(1)) + 3)}`, null, children);
    case "ordered_list_open":
      return createElement("ol", { start: Number(token.attrGet("start") ?? 1) }, children);
    case "table_open":
      // A region that scrolls must be reachable by keyboard.
      return (
        <div class="table-box" tabIndex={0} role="group" aria-label="Table">
          {createElement("table", null, children)}
        </div>
      );
    case "th_open":
    case "td_open":
      return createElement(token.tag, { class: alignment(token) }, children);
    case "link_open":
      return <Link address={token.attrGet("href")}>{children}</Link>;
    default:
      return createElement(ELEMENTS[token.type] ?? Fragment, null, children);
  }
}

function alignment(token: Token): string | undefined {
  const side = /text-align:(center|right)/.exec(String(token.attrGet("style")))?.[1];
  return side && `align-${side}`;
}

function leaf(token: Token): ComponentChild {
  switch (token.type) {
    case "inline":
      return createElement(Fragment, null, nodesOf(token.children ?? []));
    case "softbreak":
      return "\n";
    case "hardbreak":
      return <br />;
    case "hr":
      return <hr />;
    case "code_inline":
      return <code>{token.content}</code>;
    case "fence":
    case "code_block":
      return <CodeBlock code={token.content} />;
    case "image":
      return <Link address={token.attrGet("src")}>{`Image: ${token.content || "without a description"}`}</Link>;
    default:
      return token.content;
  }
}

function Link({ address, children }: { address: string | number | null; children: ComponentChild }) {
  if (typeof address !== "string" || !isWebAddress(address)) return <>{children}</>;
  return (
    <a href={address} target="_blank" rel="noopener noreferrer nofollow">
      {children}
    </a>
  );
}

function CodeBlock({ code }: { code: string }) {
  const text = code.replace(/\n$/, "");
  return (
    <div class="code-block">
      <pre class="json" tabIndex={0} role="group" aria-label="Code">
        <code>{text}</code>
      </pre>
      <CopyButton text={text} label="Copy" />
    </div>
  );
}
