// The service's native API: JSON in and out, every failure one sentence.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // 0: the server did not answer
  }
}

let pool = ""; // "": the service's first

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service does not answer.", 0);
  }
  if (response.ok) return response;
  let told = "";
  try {
    const body = await response.json();
    told = body.error || (typeof body.detail === "string" ? body.detail : "");
  } catch {
    told = ""; // not JSON: a proxy's page, say
  }
  throw new ApiError(told || `The service answered ${response.status}.`, response.status);
}

const get = async (path, query = {}) => {
  const asked = new URLSearchParams(pool ? { ...query, pool } : query).toString();
  return (await ask(asked ? `${path}?${asked}` : path)).json();
};
const post = (path, body, signal) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(pool ? { ...body, pool } : body), signal });

/** Trade a token for a cookie, which images send too; the page itself keeps neither. */
export const signIn = (token) => ask("/api/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });

export const setPool = (name) => (pool = name);
export const imageUrl = (uid, side) => `/api/image/${encodeURIComponent(uid)}?side=${side}${pool ? `&pool=${encodeURIComponent(pool)}` : ""}`;
export const info = () => get("/api/info");
export const search = async (body, signal) => (await post("/api/search", body, signal)).json();
export const sample = (uid) => get(`/api/sample/${encodeURIComponent(uid)}`);
export const histogram = (column, bins = 80) => get(`/api/histogram/${encodeURIComponent(column)}`, { bins });
export const edge = (column, at, n = 6) => get(`/api/edge/${encodeURIComponent(column)}`, { at, n });
export const preview = async (select, signal) => (await post("/api/preview", { select }, signal)).json();
export const concepts = (model) => get(`/api/concepts/${encodeURIComponent(model)}`);
export const duplicates = (query) => get("/api/duplicates", query);

/** Save what /api/export answers ({uids} or {select}) as NAME.npy: sorted uids, a subset. */
export async function download(body, name) {
  const blob = await (await post("/api/export", body)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name}.npy`;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
