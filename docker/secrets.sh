# To be sourced. Reads secrets from files and never shows one.

# export_secret VARIABLE NAME: puts the content of /run/secrets/NAME into VARIABLE. Ends the
# container when the file is missing or empty, or holds what Orthanc's configuration cannot.
export_secret() {
    secret_file=/run/secrets/$2
    if [ ! -r "$secret_file" ]; then
        echo "the secret $2 is missing, or user $(id -u) may not read it: see docker/README.md" >&2
        exit 78
    fi
    secret=$(cat "$secret_file")
    case $secret in
    '')
        echo "the secret $2 is empty: see docker/README.md" >&2
        exit 78
        ;;
    *[!A-Za-z0-9._~+/=-]*)
        echo "the secret $2 may hold only letters, digits and . _ ~ + / = -" >&2
        exit 78
        ;;
    esac
    export "$1=$secret"
    unset secret secret_file
}
