import { useEffect, useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { faultsByField } from "../api/problem";
import type { Account } from "../api/types";
import { asWords, parseTime } from "../lib/format";
import { useAction, usePages } from "../lib/hooks";
import { href, router } from "../lib/router";
import { Age, Button, Card, ProblemNotice, SelectField, Table, TextField } from "../ui/parts";
import { Paged } from "../ui/paged";
import { formatUserFilters, NO_USER_FILTERS, parseUserFilters, type UserFilters, userQuery } from "./filters";
import { AccountBadge, FormCard, NOBODY, PersonFields, ROLE_OPTIONS } from "./parts";

const PAGE = 50;

export function Users({ query }: { query: string }) {
  const filters = parseUserFilters(query);
  const key = formatUserFilters(filters);
  const accounts = usePages(
    (cursor) => answerOf(api.GET("/admin/users", { params: { query: { ...userQuery(filters), limit: PAGE, cursor } } })),
    key,
  );
  return (
    <>
      <Card title="Users">
        <Search filters={filters} />
        <Paged
          pages={accounts}
          noun="user"
          plural="users"
          empty={key ? <p>No user matches these filters.</p> : <p>There are no users.</p>}
        >
          {(items) => (
            <Table label="Users" head={["User", "Role", "State", "Second factor", "Workspaces", "Created"]}>
              {items.map((account) => (
                <Row key={account.id} account={account} />
              ))}
            </Table>
          )}
        </Paged>
      </Card>
      <NewAccount />
    </>
  );
}

function Row({ account }: { account: Account }) {
  return (
    <tr>
      <th scope="row">
        <span class="people-name">
          <a href={href("person", { id: account.id })}>{account.email}</a>
          {account.name && <span class="faint">{account.name}</span>}
        </span>
      </th>
      <td>{asWords(account.role)}</td>
      <td>
        <AccountBadge account={account} />
      </td>
      <td>{account.second_factor ? "Yes" : "No"}</td>
      <td>{account.memberships.map(({ workspace, role }) => `${workspace} (${role})`).join(", ") || "–"}</td>
      <td>
        <Age time={parseTime(account.created_at)} />
      </td>
    </tr>
  );
}

function show(filters: UserFilters): void {
  router().go(href("people", {}, formatUserFilters(filters)), { replace: true });
}

function Search({ filters }: { filters: UserFilters }) {
  const [search, setSearch] = useState(filters.search);
  useEffect(() => setSearch(filters.search), [filters.search]);
  return (
    <form
      class="filter-fields"
      role="search"
      aria-label="Users"
      onSubmit={(event) => {
        event.preventDefault();
        show({ ...filters, search });
      }}
    >
      <TextField label="Name or address" type="search" maxLength={200} value={search} onInput={setSearch} />
      <SelectField
        label="Role"
        value={filters.role}
        options={[{ value: "", label: "Any role" }, ...ROLE_OPTIONS]}
        onChange={(role) => show({ ...filters, search, role: role as UserFilters["role"] })}
      />
      <SelectField
        label="State"
        value={filters.active}
        options={[
          { value: "", label: "Any state" },
          { value: "true", label: "Active" },
          { value: "false", label: "Deactivated" },
        ]}
        onChange={(active) => show({ ...filters, search, active: active as UserFilters["active"] })}
      />
      <Button kind="primary" type="submit">
        Search
      </Button>
      {formatUserFilters(filters) !== "" && (
        <Button
          kind="quiet"
          onClick={() => {
            setSearch("");
            show(NO_USER_FILTERS);
          }}
        >
          Clear filters
        </Button>
      )}
    </form>
  );
}

function NewAccount() {
  const [draft, setDraft] = useState(NOBODY);
  const [password, setPassword] = useState("");
  const action = useAction();
  const faults = action.problem ? faultsByField(action.problem, "body.", ["email", "name", "role", "password"]).fields : {};
  return (
    <FormCard title="Create an account">
      <form
        class="form people-form"
        onSubmit={(event) => {
          event.preventDefault();
          void action.run(async () => {
            const body = { ...draft, name: draft.name.trim() || null, memberships: [], password };
            const account = await answerOf(api.POST("/admin/users", { body }));
            router().go(href("person", { id: account.id }));
          });
        }}
      >
        <p class="faint">An invitation is better where you can send one: then only its owner knows the password.</p>
        {Object.keys(faults).length === 0 && <ProblemNotice problem={action.problem} />}
        <PersonFields draft={draft} faults={faults} onChange={setDraft} />
        <TextField
          label="Password"
          type="password"
          autocomplete="new-password"
          required
          value={password}
          error={faults["password"]}
          hint="Its owner can change it."
          onInput={setPassword}
        />
        <div class="buttons">
          <Button kind="primary" type="submit" busy={action.busy}>
            Create the account
          </Button>
        </div>
      </form>
    </FormCard>
  );
}
