import { LANGUAGES, type Language, speak, useLanguage, useTexts } from "../texts";
import { IconButton } from "./IconButton";
import { Menu } from "./Menu";
import { switchTheme } from "./theme";

/** Dark or light, and the language. */
export function Appearance() {
  const t = useTexts();
  const { language } = useLanguage();
  return (
    <>
      <Menu
        label={t("menu.language")}
        trigger={(props) => (
          <button
            type="button"
            className="button plain"
            aria-label={`${t("menu.language")}: ${LANGUAGES[language]}`}
            {...props}
          >
            {language.toUpperCase()}
          </button>
        )}
      >
        {(close) =>
          (Object.keys(LANGUAGES) as Language[]).map((one) => (
            <button
              key={one}
              type="button"
              className="menu-item"
              lang={one}
              aria-current={one === language}
              onClick={() => {
                speak(one);
                close();
              }}
            >
              {LANGUAGES[one]}
            </button>
          ))
        }
      </Menu>
      <IconButton icon="moon" label={t("menu.theme")} onClick={switchTheme} />
    </>
  );
}
