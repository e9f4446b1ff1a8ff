// The sheet of keys, made from the table that the keyboard goes by.
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { COMMANDS, shown } from "../logic/keys";
import * as store from "../store";
import { Icon } from "./parts";

export function Help(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = store.helpOpen.value;
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  const names = store.item.value?.class_names ?? [];
  const entries = Object.entries(COMMANDS).filter(([name]) => !/^class[1-9]$/.test(name) || names[Number(name.at(-1)) - 1]);
  const groups = [...new Set(entries.map(([, { group }]) => group))];
  return (
    <dialog ref={dialog} class="help" aria-labelledby="help" onClose={() => (store.helpOpen.value = false)}>
      <header>
        <h2 id="help">Keys</h2>
        <button type="button" aria-label="Close" onClick={() => (store.helpOpen.value = false)}><Icon name="close" /></button>
      </header>
      <div class="sheets">
        {groups.map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl>
              {entries.filter(([, each]) => each.group === group).map(([name, { keys, says }]) => (
                <div key={name}>
                  <dt>{keys.map((key) => <kbd key={key}>{shown(key)}</kbd>)}</dt>
                  <dd>{/^class[1-9]$/.test(name) ? names[Number(name.at(-1)) - 1] : says}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <p class="hint">
        Each change is saved at once, with your name. A nucleus that the model proposed and that is wrong is best rejected: it
        stays to be seen, and is left out of the labels. Keys do nothing while you type in a field.
      </p>
    </dialog>
  );
}
