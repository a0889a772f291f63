CLASSOVERRIDE = "class-native"
python native_virtclass_handler () {
    name = e.data.getVar("PN")
    if "class-native" in (e.data.getVar("CLASSOVERRIDE") or "") and not name.endswith("-native"):
        e.data.setVar("PN", name + "-native")
}
addhandler native_virtclass_handler
native_virtclass_handler[eventmask] = "bb.event.RecipePreFinalise"
