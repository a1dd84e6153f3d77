// The search would run in a worker made from a blob, which the policy of the page does not allow.
Redoc.init("/openapi.json", { disableSearch: true }, document.getElementById("redoc"));
