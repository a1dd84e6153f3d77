import { formatNumber } from "../lib/format";
import type { Counter } from "../live/live-job";

export function Counters({ counters }: { counters: readonly Counter[] }) {
  return (
    <span class="counters">
      {counters.map(({ label, value, total }) => (
        <span key={label} class="counter">
          <span class="number">
            {formatNumber(value)}
            {total !== null && `/${formatNumber(total)}`}
          </span>{" "}
          {label}
        </span>
      ))}
    </span>
  );
}
