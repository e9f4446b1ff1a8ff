// What stands above the image: that the program cannot be asked, that edits are not saved, and short notices.
import type { JSX } from "preact";
import * as actions from "../actions";
import * as store from "../store";
import { Icon, plural } from "./parts";

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

export function Banners(): JSX.Element {
  const { pending, message } = store.report.value;
  const waits = store.report.value.state === "waiting";
  const lost = store.unauthorized.value || store.report.value.unauthorized;
  const gone = !lost && (store.unreachable.value !== null || (waits && message));
  return (
    <div class="banners">
      {lost && (
        <div class="banner" role="alert">
          This page may not ask the program any more. Open the link again that <code>hemalum review</code> prints in the terminal.
          {pending.length > 0 && ` ${plural(pending.length, "edit")} will be saved then.`}
        </div>
      )}
      {gone && (
        <div class="banner" role="alert">
          <span>
            {waits ? `Not saved: ${message}. ` : `${capital(store.unreachable.value ?? "")}. `}
            {pending.length > 0
              ? `${plural(pending.length, "edit")} ${pending.length === 1 ? "is" : "are"} kept here and saved as soon as this page's program answers.`
              : "Is the program of this page still running?"}
          </span>
          <button type="button" onClick={actions.retry}>Try again</button>
        </div>
      )}
      {store.failures.value.map((failure, i) => (
        <div class="banner" role="alert" key={i}>
          <span>
            Not saved ({failure.what.kind}{failure.item === store.item.value?.id ? "" : ` in ${failure.itemName}`}): {failure.message}
          </span>
          {failure.item === store.item.value?.id && (
            <button type="button" onClick={() => actions.again(failure)}>Save again</button>
          )}
          {failure.item !== store.item.value?.id && (
            <button type="button" onClick={() => void actions.openId(failure.item, failure.itemName)}>Open it</button>
          )}
          <button type="button" onClick={() => actions.discard(failure)}>Discard</button>
        </div>
      ))}
      {store.notice.value && !store.failures.value.length && (
        <div class={`banner note ${store.notice.value.error ? "error" : ""}`}>
          <span>{store.notice.value.text}</span>
          <button type="button" aria-label="Close" onClick={() => (store.notice.value = null)}><Icon name="close" /></button>
        </div>
      )}
    </div>
  );
}
