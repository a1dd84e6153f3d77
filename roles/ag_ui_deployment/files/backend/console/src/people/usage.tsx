import { answerOf, api } from "../api/client";
import { formatNumber } from "../lib/format";
import { usePages } from "../lib/hooks";
import { href, router } from "../lib/router";
import { formatQuery } from "../lib/query";
import { Button, Card, Table, TextField } from "../ui/parts";
import { Paged } from "../ui/paged";
import { type Days, parseDays } from "./filters";

const PAGE = 50;

/** The tokens that users have used of models. */
export function Usage({ query }: { query: string }) {
  const days = parseDays(query);
  const { since, until } = days;
  const totals = usePages(
    (cursor) =>
      answerOf(
        api.GET("/admin/usage", { params: { query: { ...(since && { since }), ...(until && { until }), limit: PAGE, cursor } } }),
      ),
    `${since} ${until}`,
  );
  const change = (changed: Partial<Days>): void => {
    router().go(href("people", {}, formatQuery({ tab: "usage", ...days, ...changed })), { replace: true });
  };
  return (
    <Card title="Tokens of the agent">
      <div class="filter-fields">
        <TextField label="First day (UTC)" type="date" value={since} onInput={(day) => change({ since: day })} />
        <TextField label="Last day (UTC)" type="date" value={until} onInput={(day) => change({ until: day })} />
        {(since || until) && (
          <Button kind="quiet" onClick={() => change({ since: "", until: "" })}>
            Any time
          </Button>
        )}
      </div>
      <Paged pages={totals} noun="total" plural="totals" empty={<p>Nobody has used tokens{since || until ? " in this time" : ""}.</p>}>
        {(items) => (
          <Table label="Tokens by user and model" head={["User", "Model", "Input tokens", "Output tokens"]}>
            {items.map((total) => (
              <tr key={`${total.user_id} ${total.model}`}>
                <th scope="row">
                  <a href={href("person", { id: total.user_id })}>{total.user_name}</a>
                </th>
                <td>{total.model}</td>
                <td class="number">{formatNumber(total.input_tokens)}</td>
                <td class="number">{formatNumber(total.output_tokens)}</td>
              </tr>
            ))}
          </Table>
        )}
      </Paged>
    </Card>
  );
}
