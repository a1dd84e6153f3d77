/** Outlines of 24 by 24, drawn in the colour of the text. */

const PATHS = {
  live: "M3 12h4l3-8 4 16 3-8h4",
  start: "M7 4v16l13-8z",
  agent: "M4 5h16v11H11l-5 4v-4H4zM9 10.5h.01M12 10.5h.01M15 10.5h.01",
  stream: "M4 6c4-3 12 3 16 0M4 12c4-3 12 3 16 0M4 18c4-3 12 3 16 0",
  people: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2 20c.7-4 3.5-6 7-6s6.3 2 7 6M16 4.5a3.5 3.5 0 0 1 0 6.5M18.5 14.5c2 .8 3 2.7 3.5 5.5",
  audit: "M6 3h9l4 4v14H6zM9 11h7M9 15h7",
  settings: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4",
  mine: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21c1-5 4-7 8-7s7 2 8 7",
  logout: "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9",
  close: "M6 6l12 12M18 6 6 18",
  check: "M5 13l4 4L19 7",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path class="logo-shield" d="M16 2 4 6.5v9C4 23 9 28 16 30c7-2 12-7 12-14.5v-9z" />
      <path class="logo-pulse" d="M8.5 16.5h3.6l2.4-5.5 3.6 9.5 2.3-4h3.1" />
    </svg>
  );
}
